# Ends the sessions of grants: the processes that carry a grant's id in their environment, and the
# sshd process of each one's connection.
# arguments: grant ids
set -u
LC_ALL=C
export LC_ALL
# A path of /proc has no blanks.
# shellcheck disable=SC2013
marked() {
  for id in "$@"; do
    for file in $(grep -lF -- "ORCH_GRANT=$id" /proc/[0-9]*/environ 2>/dev/null); do
      file=${file#/proc/}
      printf '%s ' "${file%/environ}"
    done
  done
}
# The sshd process that serves the session which a process belongs to; never the one that listens.
server_of() {
  at=$1
  while [ "$at" -gt 1 ]; do
    name=
    above=0
    while read -r key value _; do
      case $key in
        Name:) name=$value ;;
        PPid:) above=$value ;;
      esac
    done 2>/dev/null <"/proc/$at/status"
    case $name in
      sshd*)
        title=$(tr '\0' ' ' 2>/dev/null <"/proc/$at/cmdline")
        case $title in *': '*@*) printf '%s ' "$at" ;; esac
        return
        ;;
    esac
    at=${above:-0}
  done
}
ended=0
round=0
while [ "$round" -lt 20 ]; do
  pids=$(marked "$@")
  [ -n "$pids" ] || break
  servers=
  for pid in $pids; do
    servers="$servers$(server_of "$pid")"
    [ "$round" -gt 0 ] || ended=$((ended + 1))
  done
  # shellcheck disable=SC2086
  kill -KILL $servers $pids 2>/dev/null
  round=$((round + 1))
  sleep 0.1 2>/dev/null || sleep 1
done
left=0
for pid in $(marked "$@"); do
  [ -z "$pid" ] || left=$((left + 1))
done
printf 'ended=%s\nleft=%s\nend\n' "$ended" "$left"
