{{/* The name that everything begins with. */}}
{{- define "babelwatch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "babelwatch.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "babelwatch.labels" -}}
{{ include "babelwatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* babelwatch.toml: the values, and what the chart itself knows. */}}
{{- define "babelwatch.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "watchlist" "/etc/babelwatch/watchlist/watchlist.toml" -}}
{{- $http := deepCopy (default dict $config.http) -}}
{{- if .Values.page.enabled -}}
{{- $_ := set $http "host" "0.0.0.0" -}}
{{- end -}}
{{- $_ := set $config "http" $http -}}
{{- toToml $config -}}
{{- end -}}

{{/* What a mistake in the values looks like, before anything is installed. */}}
{{- define "babelwatch.check" -}}
{{- if not .Values.config.kafka.bootstrap_servers -}}
{{- fail "config.kafka.bootstrap_servers: name your Kafka, for example kafka-bootstrap.kafka:9092" -}}
{{- end -}}
{{- if not (or .Values.watchlist .Values.existingWatchlist) -}}
{{- fail "watchlist: say what to watch (TOML), or name a ConfigMap in existingWatchlist" -}}
{{- end -}}
{{- if and .Values.secrets .Values.existingSecret -}}
{{- fail "secrets, existingSecret: give one of them" -}}
{{- end -}}
{{- end -}}

{{- define "babelwatch.secret" -}}
{{- .Values.existingSecret | default (ternary (include "babelwatch.fullname" .) "" (not (empty .Values.secrets))) -}}
{{- end -}}
