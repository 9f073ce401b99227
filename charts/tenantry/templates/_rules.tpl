{{/*
What the operator may do: exactly what it uses. tests/faults/rights.rs compares this with the API server's audit log.
*/}}

{{/* Kinds of the cluster. */}}
{{- define "tenantry.rules.cluster" -}}
{{- $kinds := list "databaseservers" "tenantmodules" "tenantplans" -}}
- apiGroups: [tenantry.dev]
  resources:
    {{- range $kinds }}
    - {{ . }}
    {{- end }}
  verbs: [list, watch, patch]
- apiGroups: [tenantry.dev]
  resources:
    {{- range $kinds }}
    - {{ . }}/status
    {{- end }}
  verbs: [patch]
{{/* Those that ship with the operator are listed as objects. */ -}}
- apiGroups: [tenantry.dev]
  resources: [tenantmodules]
  verbs: [create]
{{/* The own kinds in all namespaces: a Role would be deleted with its namespace, before the finalizers in it are released. */ -}}
- apiGroups: [tenantry.dev]
  resources: [tenants]
  verbs: [get, list, watch, patch]
- apiGroups: [tenantry.dev]
  resources: [tenantholds, supportaccesses]
  verbs: [list, watch, patch]
- apiGroups: [tenantry.dev]
  resources: [tenants/status, tenantholds/status, supportaccesses/status]
  verbs: [patch]
{{/* The accounts of tenants, in the namespaces of customers that have the label for it. */ -}}
- apiGroups: [tenantry.dev]
  resources: [tenantaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [tenantry.dev]
  resources: [tenantaccounts/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{/* Whether the policy is in force that proves who requests a SupportAccess. */ -}}
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingadmissionpolicies, validatingadmissionpolicybindings]
  resourceNames: [tenantry-support-access]
  verbs: [get]
{{- if .Values.webhook.enabled }}
{{/* The authority of the webhook's certificate is written there. */ -}}
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]
  resourceNames: [{{ include "tenantry.webhookName" . }}]
  verbs: [list, watch, patch]
{{- end }}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [tenants.tenantry.dev, tenantholds.tenantry.dev]
  verbs: [get]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [tenants.tenantry.dev]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [namespaces]
  {{- if not .Values.watch.clusterWide }}
  resourceNames:
    {{- range .Values.watch.namespaces }}
    - {{ . }}
    {{- end }}
  {{- end }}
  verbs: [get]
{{- end -}}

{{/* In each namespace with Tenants. */}}
{{- define "tenantry.rules.tenants" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
{{ include "tenantry.rules.events" . }}
{{- end -}}

{{- define "tenantry.rules.events" -}}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* In the namespace of the Jobs that run applications' own migration tools. */}}
{{- define "tenantry.rules.migrations" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, delete]
{{- end -}}

{{/* In the operator's own namespace. */}}
{{- define "tenantry.rules.operator" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
{{- if .Values.webhook.enabled }}
{{/* The webhook's certificate: a Secret that is created cannot be named. */ -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ .Values.webhook.secretName }}]
  verbs: [update]
{{- end }}
{{/* With the files of modules. */ -}}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ .Values.lease.name }}]
  verbs: [get, update]
{{- if not .Values.migrations.namespace }}
{{ include "tenantry.rules.migrations" . }}
{{- end }}
{{- end -}}
