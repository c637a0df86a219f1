# Stands before each of the other scripts.
# shellcheck disable=SC2034,SC2088,SC2012
set -u
LC_ALL=C
export LC_ALL
# The work directory: an absolute path, or one below the home that '~/' stands for.
work_directory() {
  case $1 in
    '') printf '%s' "${HOME:-/nonexistent}/.cache/orchestrator" ;;
    '~/'*) printf '%s' "${HOME:-/nonexistent}/${1#'~/'}" ;;
    *) printf '%s' "$1" ;;
  esac
}
# SHA-256 of a file; a host without a tool for it lets the runner read itself.
digest() {
  if command -v sha256sum >/dev/null 2>&1; then set -- "$(sha256sum <"$1" 2>/dev/null)"
  elif command -v shasum >/dev/null 2>&1; then set -- "$(shasum -a 256 <"$1" 2>/dev/null)"
  else set -- "$("$1" --self-check 2>/dev/null)"
  fi
  printf '%s' "${1%% *}"
}
free_kib() {
  df -Pk -- "$1" 2>/dev/null | awk 'NR > 1 { free = $4 } END { print free }'
}
