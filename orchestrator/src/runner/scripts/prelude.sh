# Stands before each of the other scripts.
# shellcheck disable=SC2034,SC2088,SC2012
set -u
LC_ALL=C
export LC_ALL
# The work directory: an absolute path, or one below the home that '~/' stands for.
case $1 in
  '') base=${HOME:-/nonexistent}/.cache/orchestrator ;;
  '~/'*) base=${HOME:-/nonexistent}/${1#'~/'} ;;
  *) base=$1 ;;
esac
