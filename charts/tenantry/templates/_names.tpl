{{/* The name of the release's objects. */}}
{{- define "tenantry.name" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains "tenantry" .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-tenantry" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* The name of objects outside the release's namespace: several releases may have the same name. */}}
{{- define "tenantry.clusterName" -}}
{{ include "tenantry.name" . }}:{{ .Release.Namespace }}
{{- end -}}

{{- define "tenantry.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "tenantry.name" .) }}
{{- end -}}

{{- define "tenantry.selector" -}}
app.kubernetes.io/name: tenantry
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "tenantry.labels" -}}
{{ include "tenantry.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "tenantry.image" -}}
{{- $repository := required "image.repository: name the image of the operator, in a registry that your nodes can pull from" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The operator's ServiceAccount, as the subject of a binding. */}}
{{- define "tenantry.subject" -}}
- kind: ServiceAccount
  name: {{ include "tenantry.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
