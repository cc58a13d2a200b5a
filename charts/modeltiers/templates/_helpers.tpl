{{/* Labels of every object of the chart. Pods of the operator are found by the name alone. */}}
{{- define "modeltiers.labels" -}}
app.kubernetes.io/name: modeltiers-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: modeltiers
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "modeltiers.selector" -}}
app.kubernetes.io/name: modeltiers-operator
{{- end }}

{{/* One image of the block: (list $ "router"). Nothing when it has no repository. */}}
{{- define "modeltiers.image" -}}
{{- $root := index . 0 }}
{{- $parts := index $root.Values.images (index . 1) }}
{{- if $parts.repository }}
{{- $registry := $root.Values.images.registry | default $parts.registry }}
{{- $name := list $registry $parts.repository | compact | join "/" }}
{{- if $parts.digest }}{{ printf "%s@%s" $name $parts.digest }}
{{- else }}{{ printf "%s:%s" $name ($parts.tag | default $root.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The settings file: the settings as they are, and from the block of images what they leave out. */}}
{{- define "modeltiers.settings" -}}
{{- $images := dict }}
{{- with include "modeltiers.image" (list . "router") }}
{{- $_ := set $images "router" (dict "image" .) }}
{{- end }}
{{- with .Values.images.pullSecrets }}
{{- $_ := set $images "engine" (dict "pullSecrets" .) }}
{{- end }}
{{- mergeOverwrite $images (deepCopy .Values.settings) | toYaml }}
{{- end }}
