{{- define "sparkbroker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- /* At most 50 characters: suffixes follow, and names of services have at most 63. */}}
{{- define "sparkbroker.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "sparkbroker.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sparkbroker.name" .) | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "sparkbroker.selector" -}}
app.kubernetes.io/name: {{ include "sparkbroker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: broker
{{- end }}

{{- define "sparkbroker.labels" -}}
app.kubernetes.io/name: {{ include "sparkbroker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sparkbroker.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "sparkbroker.account" -}}
{{- default (include "sparkbroker.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- /* The namespaces of Spark's pods, as a JSON list. */}}
{{- define "sparkbroker.namespaces" -}}
{{- default (list .Release.Namespace) .Values.sparkNamespaces | uniq | toJson }}
{{- end }}

{{- /* The value of the label sparkbroker.io/owner, by which the broker finds its pods. It is unique among the releases of a
       cluster, and survives the loss of the broker's volume. */}}
{{- define "sparkbroker.owner" -}}
{{- printf "%s-%s" (.Release.Name | trunc 46) (printf "%s/%s" .Release.Namespace .Release.Name | sha256sum | trunc 16) }}
{{- end }}

{{- define "sparkbroker.tokensSecret" -}}
{{- default (printf "%s-tokens" (include "sparkbroker.fullname" .)) .Values.tokens.secretName }}
{{- end }}

{{- define "sparkbroker.tlsSecret" -}}
{{- default (printf "%s-tls" (include "sparkbroker.fullname" .)) .Values.tls.secretName }}
{{- end }}

{{- /* The Secret with an operator's token; empty if there is none. */}}
{{- define "sparkbroker.operatorSecret" -}}
{{- if .Values.tokens.operatorSecretName -}}
{{ .Values.tokens.operatorSecretName }}
{{- else if not .Values.tokens.secretName -}}
{{ include "sparkbroker.fullname" . }}-operator
{{- end -}}
{{- end }}

{{- define "sparkbroker.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# Otherwise every mount opens the state folder to the group, and the broker requires it to be closed.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "sparkbroker.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* The command line's environment in pods that call the broker as its operator. */}}
{{- define "sparkbroker.clientEnv" -}}
- {name: SPARKBROKER_URL, value: "grpcs://{{ include "sparkbroker.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}"}
- {name: SPARKBROKER_CA_FILE, value: /etc/sparkbroker-tls/{{ if .Values.tls.secretName }}{{ .Values.tls.caKey }}{{ else }}tls.crt{{ end }}}
- {name: SPARKBROKER_TOKEN_FILE, value: /etc/sparkbroker-operator/token}
- {name: HOME, value: /tmp}
{{- end }}

{{/* (list "k" patterns): a CEL expression, whether the string k is one of the patterns; a * at a pattern's end matches any ending. */}}
{{- define "sparkbroker.listed" -}}
{{- $name := index . 0 }}
{{- $parts := list "false" }}
{{- range index . 1 }}
{{- if hasSuffix "*" . }}{{ $parts = append $parts (printf "%s.startsWith(%s)" $name (trimSuffix "*" . | toJson)) }}
{{- else }}{{ $parts = append $parts (printf "%s == %s" $name (toJson .)) }}{{ end }}
{{- end }}
{{- join " || " $parts }}
{{- end }}
