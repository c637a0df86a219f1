# Shows an authorized_keys file, waits for its new content, and puts that in its place: one command,
# with the file's lock held from the first look to the last. The new content is made elsewhere, so
# that every byte of it is what it shall be. Without new content nothing is changed.
# arguments: the file ('~/' is the home), '' or the seconds since the epoch at which a grant will
# end, how many tenths of a second to wait for the lock
# shellcheck disable=SC2088
set -u
LC_ALL=C
export LC_ALL
umask 077
case $1 in
  '~/'*) file=${HOME:-/nonexistent}/${1#'~/'} ;;
  *) file=$1 ;;
esac
say() { printf '%s=%s\n' "$1" "$2"; }
give_up() {
  said=$(printf '%s' "$2" | tr '\n' ' ')
  say failed "$1"
  say target "$file"
  say detail "$said"
  echo end
  exit 1
}
tmp=
held=
trap 'if [ -n "$tmp" ]; then rm -f -- "$tmp" "$tmp.old"; fi
if [ -n "$held" ]; then rm -rf -- "$held"; fi' EXIT
trap 'exit 1' HUP INT TERM PIPE
# A link stays, and what it points at is replaced.
if [ -L "$file" ]; then
  file=$(readlink -f -- "$file" 2>/dev/null) || file=
  [ -n "$file" ] || give_up kind "it is a link that leads nowhere"
fi
dir=${file%/*}
if [ ! -d "$dir" ]; then
  if [ -z "$2" ]; then
    say state absent
    echo end
    exit 0
  fi
  said=$(mkdir -p -- "$dir" 2>&1) || give_up write "$said"
fi
# The lock is on the directory, so that no lock file is left behind; without flock it is a directory.
tried=0
pause() {
  tried=$((tried + 1))
  [ "$tried" -le "$3" ] || give_up lock "another operation holds the lock of $dir"
  sleep 0.1 2>/dev/null || sleep 1
}
if command -v flock >/dev/null 2>&1; then
  exec 9<"$dir" || give_up write "the directory cannot be read"
  until flock -n 9; do pause "$@"; done
else
  lock=$dir/.orch-keys.lock
  until mkdir -- "$lock" 2>/dev/null; do
    owner=$(cat -- "$lock/pid" 2>/dev/null)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -rf -- "$lock"; else pause "$@"; fi
  done
  held=$lock
  echo "$$" >"$lock/pid"
fi
# What a killed predecessor left.
for old in "$dir"/.orch-keys.*.new "$dir"/.orch-keys.*.new.old; do
  if [ -f "$old" ]; then rm -f -- "$old"; fi
done
tmp=$dir/.orch-keys.$$.new
state=absent
if [ -e "$file" ]; then
  [ -f "$file" ] || give_up kind "it is not a file"
  # Mode and owner go with it.
  said=$(cp -p -- "$file" "$tmp" 2>&1) || give_up write "$said"
  state=present
else
  said=$( (: >"$tmp") 2>&1) || give_up write "$said"
fi
said=$(cp -- "$tmp" "$tmp.old" 2>&1) || give_up write "$said"
say state "$state"
say target "$file"
say size "$(wc -c <"$tmp" | tr -d ' ')"
if [ -n "$2" ]; then
  say openssh "$( (ssh -V || sshd -V || /usr/sbin/sshd -V) 2>&1 </dev/null | head -n 1)"
  say local "$(unset TZ; date -d "@$2" +%Y%m%d%H%M%S 2>/dev/null)"
fi
echo end
cat -- "$tmp.old"

read -r word size || exit 0
[ "$word" = write ] || exit 0
said=$( (head -c "$size" >"$tmp") 2>&1) || give_up write "$said"
[ "$(wc -c <"$tmp" | tr -d ' ')" = "$size" ] || give_up cut "the new content did not arrive whole"
# Somebody without our lock, an editor, may have written meanwhile.
if [ "$state" = present ]; then
  said=$(cmp -- "$file" "$tmp.old" 2>&1) || give_up changed "it was changed meanwhile: $said"
else
  [ ! -e "$file" ] || give_up changed "it was made meanwhile"
fi
said=$(mv -f -- "$tmp" "$file" 2>&1) || give_up write "$said"
rm -f -- "$tmp.old"
tmp=
say written "$size"
echo end
