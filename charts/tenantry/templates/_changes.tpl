{{/*
Who changed an object's spec: docs/actors.md. Both policies compute the same, so that the second one refuses whatever the first
one has not written. The webhook computes it too: src/domain/attribution/stamp.rs.
*/}}

{{/* What records users: "policy", where the API server has such policies; else "webhook", the operator's; or nothing. */}}
{{- define "tenantry.recordsUsers" -}}
{{- $wanted := .Values.admission.recordUsers | toString -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- if and (eq $wanted "webhook") (not .Values.webhook.enabled) -}}
{{- fail "admission.recordUsers: webhook needs webhook.enabled" -}}
{{- end -}}
{{- if or (eq $wanted "true") (and (eq $wanted "auto") $served) }}policy
{{- else if or (eq $wanted "webhook") (and (eq $wanted "auto") .Values.webhook.enabled) }}webhook
{{- end -}}
{{- end -}}

{{/* The name of both: a DNS name, apart from those of other releases. */}}
{{- define "tenantry.changesName" -}}
{{ include "tenantry.name" . }}.{{ .Release.Namespace }}.changes
{{- end -}}

{{/* What they look at: every kind of ours with a spec. */}}
{{- define "tenantry.changesConstraints" -}}
resourceRules:
  {{- include "tenantry.changesRules" . | nindent 2 }}
{{- end -}}

{{- define "tenantry.changesRules" -}}
- apiGroups: [tenantry.dev]
  apiVersions: ["*"]
  operations: [CREATE, UPDATE]
  resources:
    {{- range $path, $content := .Files.Glob "files/crds/*.yaml" }}
    - {{ ($content | toString | fromYaml).spec.names.plural }}
    {{- end }}
{{- end -}}

{{/* The names of the fields of all specs. */}}
{{- define "tenantry.specFields" -}}
{{- $fields := list -}}
{{- range $path, $content := .Files.Glob "files/crds/*.yaml" -}}
{{- range ($content | toString | fromYaml).spec.versions -}}
{{- $fields = concat $fields (keys .schema.openAPIV3Schema.properties.spec.properties) -}}
{{- end -}}
{{- end -}}
{{ $fields | uniq | sortAlpha | toJson }}
{{- end -}}

{{- define "tenantry.changesVariables" -}}
# The annotation as it was, and as the request has it; empty: there is none.
- name: before
  expression: >-
    oldObject == null ? '' : oldObject.metadata.?annotations['tenantry.dev/changes'].orValue('')
- name: given
  expression: object.metadata.?annotations['tenantry.dev/changes'].orValue('')
- name: changed
  expression: oldObject == null || object.?spec != oldObject.?spec
# The generation that this change gives the object.
- name: generation
  expression: 'oldObject == null ? 1 : oldObject.metadata.?generation.orValue(0) + 1'
- name: user
  expression: >-
    request.userInfo.username.size() <= 256 ? request.userInfo.username.replace('\n', ' ')
    : request.userInfo.username.substring(0, 128).replace('\n', ' ') + '…'
    + request.userInfo.username.substring(request.userInfo.username.size() - 127).replace('\n', ' ')
# The fields of spec that differ; * for a new object, or where none is known.
- name: fields
  expression: >-
    oldObject == null || !has(object.spec) || !has(oldObject.spec) ? ['*'] :
    {{ include "tenantry.specFields" . }}.filter(field, object.spec[?field] != oldObject.spec[?field])
- name: list
  expression: "variables.fields.size() == 0 ? '*' : variables.fields.join(',')"
# The last changes before this one: a line each, the newest first. What was written before the policies were there may be
# anything.
- name: earlier
  expression: >-
    variables.before.size() <= 8192
    && variables.before.matches('^[0-9]{1,15} [A-Za-z,*]+ [^\n]+(\n[0-9]{1,15} [A-Za-z,*]+ [^\n]+)*$')
    ? variables.before.split('\n').filter(line, int(line.split(' ')[0]) < variables.generation
    && int(line.split(' ')[0]) > variables.generation - 10) : []
- name: stamp
  expression: >-
    ([string(variables.generation) + ' ' + variables.list + ' ' + variables.user] + variables.earlier).join('\n')
{{- end -}}
