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
{{- $engine := dict }}
{{- with include "modeltiers.image" (list . "engine") }}{{ $_ := set $engine "image" . }}{{ end }}
{{- with .Values.images.pullSecrets }}{{ $_ := set $engine "pullSecrets" . }}{{ end }}
{{- $router := dict }}
{{- with include "modeltiers.image" (list . "router") }}{{ $_ := set $router "image" . }}{{ end }}
{{- $distill := dict }}
{{- with include "modeltiers.image" (list . "distill") }}{{ $_ := set $distill "image" . }}{{ end }}
{{- with include "modeltiers.image" (list . "train") }}{{ $_ := set $distill "trainImage" . }}{{ end }}
{{- $found := dict }}
{{- range $name, $part := dict "engine" $engine "router" $router "distill" $distill }}
{{- if $part }}{{ $_ := set $found $name $part }}{{ end }}
{{- end }}
{{- mergeOverwrite $found (deepCopy .Values.settings) | toYaml }}
{{- end }}

{{/* The operator's image; without one there is nothing to install. */}}
{{- define "modeltiers.operatorImage" -}}
{{- include "modeltiers.image" (list . "operator") | required "images.operator.repository is empty: name the operator's image" }}
{{- end }}

{{/* Whether an object of somebody else's kind is wanted: (list $ wish "group/version/Kind"). Nothing for no. */}}
{{- define "modeltiers.wished" -}}
{{- $wish := index . 1 }}
{{- if or (eq $wish "Always") (and (eq $wish "Auto") ((index . 0).Capabilities.APIVersions.Has (index . 2))) }}yes{{ end }}
{{- end }}

{{/* Peers of a NetworkPolicy from a list of the settings. */}}
{{- define "modeltiers.peers" -}}
{{- range . }}
- podSelector: {{- with .podLabels }}{{ dict "matchLabels" . | toYaml | nindent 4 }}{{ else }} {}{{ end }}
  {{- with .namespace }}
  namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
