{{/* The name that labels carry. */}}
{{- define "ullage.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The beginning of every object's name: the release's, with the chart's unless it says so already. */}}
{{- define "ullage.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "ullage.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "ullage.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ullage.operator" -}}
{{- include "ullage.fullname" . }}-operator
{{- end -}}

{{- define "ullage.pools" -}}
{{- include "ullage.fullname" . }}-pools
{{- end -}}

{{- define "ullage.serviceAccount" -}}
{{- default (include "ullage.operator" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Labels by which the operator's own pod is found; they can never change. */}}
{{- define "ullage.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ullage.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of every object. */}}
{{- define "ullage.commonLabels" -}}
app.kubernetes.io/name: {{ include "ullage.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ullage
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of the operator's own objects. */}}
{{- define "ullage.labels" -}}
{{ include "ullage.commonLabels" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* An image reference; takes a list of the image's values and the root. */}}
{{- define "ullage.image" -}}
{{- $image := index . 0 -}}
{{- $root := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The pool profiles as the operator reads them: the image filled in where a pool names none. */}}
{{- define "ullage.profiles" -}}
{{- $image := include "ullage.image" (list .Values.runtime.image .) -}}
{{- $profiles := dict -}}
{{- range $name, $profile := .Values.pools -}}
{{- $_ := set $profiles $name (merge (dict) ($profile | default dict) (dict "image" $image)) -}}
{{- end -}}
{{- toYaml $profiles -}}
{{- end -}}

{{/* Labels by which the Qdrant's pod is found; they can never change. */}}
{{- define "ullage.qdrantSelectorLabels" -}}
app.kubernetes.io/name: {{ include "ullage.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: qdrant
{{- end -}}

{{/* Labels by which the pods that take snapshots are found. */}}
{{- define "ullage.snapshotsSelectorLabels" -}}
app.kubernetes.io/name: {{ include "ullage.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: snapshots
{{- end -}}

{{/* Labels of the Qdrant's objects. */}}
{{- define "ullage.qdrantLabels" -}}
{{ include "ullage.commonLabels" . }}
app.kubernetes.io/component: qdrant
{{- end -}}

{{/* Who the Qdrant's pods run as: the user of its unprivileged image. */}}
{{- define "ullage.qdrantSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 2000
fsGroup: 3000
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "ullage.qdrantContainerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where the Qdrant's pods may run, and with which secrets their images are pulled. */}}
{{- define "ullage.qdrantPlace" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{ end -}}
{{- with .Values.qdrant.nodeSelector -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .Values.qdrant.tolerations -}}
tolerations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .Values.qdrant.affinity -}}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
