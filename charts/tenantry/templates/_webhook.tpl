{{/*
The admission webhook: docs/webhook.md. The operator writes the authority of its certificate, and a path that no other client
knows, into the configurations; the path begins with the first part of the name.
*/}}

{{/* The name of both configurations: a DNS name, apart from those of other releases. */}}
{{- define "tenantry.webhookName" -}}
{{ include "tenantry.name" . }}.{{ .Release.Namespace }}
{{- end -}}

{{/* How one is reached, and that nothing depends on it. */}}
{{- define "tenantry.webhook" -}}
clientConfig:
  service:
    name: {{ include "tenantry.name" .root }}
    namespace: {{ .root.Release.Namespace }}
    port: 443
admissionReviewVersions: [v1]
sideEffects: {{ .effects }}
failurePolicy: Ignore
matchPolicy: Equivalent
timeoutSeconds: 3
{{- end -}}

{{/* The namespaces whose objects are the operator's. */}}
{{- define "tenantry.webhookNamespaces" -}}
{{- if .Values.watch.clusterWide -}}
namespaceSelector: {}
{{- else -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values:
        {{- range .Values.watch.namespaces }}
        - {{ . }}
        {{- end }}
{{- end -}}
{{- end -}}
