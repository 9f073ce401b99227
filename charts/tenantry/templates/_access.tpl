{{/*
Who may do what: docs/access.md. Verbs beside Kubernetes' own are checked by the policies of access-policies.yaml.
*/}}

{{/* The plural names of all kinds, but not their status: only the operator writes that. */}}
{{- define "tenantry.access.kinds" -}}
{{- $kinds := list -}}
{{- range $path, $content := .Files.Glob "files/crds/*.yaml" -}}
{{- $kinds = append $kinds ($content | toString | fromYaml).spec.names.plural -}}
{{- end -}}
{{ $kinds | uniq | sortAlpha | toJson }}
{{- end -}}

{{- define "tenantry.access.events" -}}
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [get, list, watch]
{{- end -}}

{{- define "tenantry.access.platform-operator" -}}
- apiGroups: [tenantry.dev]
  resources: {{ include "tenantry.access.kinds" . }}
  verbs:
    - get
    - list
    - watch
    - create
    - update
    - patch
    - delete
    - deletecollection
    - acknowledge
    - approve
    - hold
    - purge
    - rename
    - retry
{{/* The breaker is acknowledged by an annotation of this CRD. */ -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [tenants.tenantry.dev]
  verbs: [get, patch]
{{ include "tenantry.access.events" . }}
{{- end -}}

{{- define "tenantry.access.support" -}}
- apiGroups: [tenantry.dev]
  resources: [databaseservers, supportaccesses, tenantholds, tenantmodules, tenantplans, tenants]
  verbs: [get, list, watch]
- apiGroups: [tenantry.dev]
  resources: [supportaccesses]
  verbs: [create, delete]
{{ include "tenantry.access.events" . }}
{{- end -}}

{{- define "tenantry.access.support-approver" -}}
- apiGroups: [tenantry.dev]
  resources: [supportaccesses]
  verbs: [get, list, watch, patch, approve, delete]
{{- end -}}

{{/* Without the verb hold: of its own trigger only. */}}
{{- define "tenantry.access.billing" -}}
- apiGroups: [tenantry.dev]
  resources: [tenantholds, tenantplans, tenants]
  verbs: [get, list, watch]
- apiGroups: [tenantry.dev]
  resources: [tenantholds]
  verbs: [create, update, patch, delete]
{{- end -}}

{{- define "tenantry.access.tenant-admin" -}}
- apiGroups: [tenantry.dev]
  resources: [tenantaccounts]
  verbs: [get, list, watch, update, patch]
{{- end -}}

{{/* Rules that Kubernetes' own roles take up, each for those above it too: view, edit, admin. */}}
{{- define "tenantry.access.view" -}}
- apiGroups: [tenantry.dev]
  resources: [tenantholds, tenantplans, tenants]
  verbs: [get, list, watch]
{{- end -}}

{{- define "tenantry.access.edit" -}}
- apiGroups: [tenantry.dev]
  resources: [tenants]
  verbs: [create, update, patch]
{{- end -}}

{{- define "tenantry.access.admin" -}}
- apiGroups: [tenantry.dev]
  resources: [tenants]
  verbs: [create, update, patch, delete, deletecollection, acknowledge, purge, retry]
- apiGroups: [tenantry.dev]
  resources: [tenantholds]
  verbs: [create, update, patch, delete, deletecollection, hold]
{{- end -}}

{{/* The name of the object: a request that deletes several has none, nor has one whose name the API server makes. */}}
{{- define "tenantry.access.name" -}}
has(request.name) ? request.name : ''
{{- end -}}

{{/* CEL: whether the user has a verb on the object of the request, which has a namespace; a list of resource and verb. */}}
{{- define "tenantry.access.may" -}}
authorizer.group('tenantry.dev').resource('{{ index . 0 }}').namespace(request.namespace).name({{ include "tenantry.access.name" . }}).check('{{ index . 1 }}').allowed()
{{- end -}}

{{/* CEL: whether the user is an operator, which alone may write the status of a kind. */}}
{{- define "tenantry.access.operates" -}}
authorizer.group('tenantry.dev').resource('{{ . }}').subresource('status').namespace(request.namespace).name({{ include "tenantry.access.name" . }}).check('patch').allowed()
{{- end -}}

{{/* CEL: whether the request gives an annotation a new value. One that is removed requests nothing. */}}
{{- define "tenantry.access.requests" -}}
object.metadata.?annotations['{{ . }}'].orValue('') != '' && (oldObject == null || object.metadata.?annotations['{{ . }}'] != oldObject.metadata.?annotations['{{ . }}'])
{{- end -}}
