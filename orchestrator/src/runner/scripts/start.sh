# Becomes the runner. When the runner is not there, says what the host is, waits for the word
# "send", receives the runner, checks it, gives it its name, and then becomes it: a deploy is this
# one command, with or without an upload. When input ends instead, nothing was changed.
# arguments: work directory ('' for the default), SHA-256 of the runner, its size in gzip, its own
# size, and then the runner's arguments
sha=$2 gzip_size=$3 raw_size=$4
shift 4
exe=$base/$sha/remote-runner
say() { printf '%s=%s\n' "$1" "$2"; }
# SHA-256 of a file; a host without a tool for it lets the runner read itself.
digest() {
  if command -v sha256sum >/dev/null 2>&1; then set -- "$(sha256sum <"$1" 2>/dev/null)"
  elif command -v shasum >/dev/null 2>&1; then set -- "$(shasum -a 256 <"$1" 2>/dev/null)"
  else set -- "$("$1" --self-check 2>/dev/null)"
  fi
  printf '%s' "${1%% *}"
}
free_kib() {
  df -Pk -- "$1" 2>/dev/null | { read -r _ && read -r _ _ _ free _ && printf '%s' "$free"; }
}
# The nearest directory above that exists; the names on the way to it, deepest first, are made by
# us and noted, so that a purge can take them away again.
look_upwards() {
  near=$base made=
  while [ ! -e "$near" ]; do
    made="$made$near
"
    case $near in
      */*) near=${near%/*} near=${near:-/} ;;
      *) near=. ;;
    esac
  done
}
state=absent
if [ -f "$exe" ] && [ -x "$exe" ]; then
  if [ "$(digest "$exe")" = "$sha" ]; then state=ready; else state=damaged; fi
fi
say state "$state"
if [ "$state" = ready ]; then
  echo end
  exec "$exe" "$@"
fi
look_upwards
say system "$(uname -sm 2>/dev/null)"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
say base "$base"
say near "$near"
if [ -w "$near" ]; then say writable yes; else say writable no; fi
say free_kib "$(free_kib "$near")"
if command -v gzip >/dev/null 2>&1; then encoding=gzip; else encoding=raw; fi
say encoding "$encoding"
echo end

read -r word || exit 0
[ "$word" = send ] || exit 0
umask 077
tmp=
trap 'if [ -n "$tmp" ]; then rm -f -- "$tmp"; fi' EXIT
trap 'exit 1' HUP INT TERM PIPE
give_up() {
  said=$(printf '%s' "$2" | tr '\n' ' ')
  say failed "$1"
  say base "$base"
  say free_kib "$(free_kib "$base")"
  say detail "$said"
  echo end
  exit 1
}
said=$(mkdir -p -- "$base/$sha" 2>&1) || give_up mkdir "$said"
if [ -n "$made" ]; then
  said=$(printf '%s' "$made" 2>&1 >"$base/.created") || give_up write "$said"
else
  said=$(chmod 700 -- "$base" 2>&1) || give_up owner "$said"
fi
tmp=$base/$sha/.upload.$$
# `head` leaves what follows to the runner; nothing follows before our answer was read.
case $encoding in
  gzip) said=$({ head -c "$gzip_size" | gzip -dc >"$tmp"; } 2>&1) || give_up write "$said" ;;
  *) said=$({ head -c "$raw_size" >"$tmp"; } 2>&1) || give_up write "$said" ;;
esac
said=$(chmod 700 -- "$tmp" 2>&1) || give_up write "$said"
said=$(digest "$tmp")
[ "$said" = "$sha" ] || give_up digest "its SHA-256 is $said"
# It must run here: noexec mounts, an old C library and a foreign processor show at this point.
said=$("$tmp" --self-check 2>&1) || give_up run "$said"
[ "$said" = "$sha" ] || give_up run "$said"
said=$(mv -f -- "$tmp" "$exe" 2>&1) || give_up write "$said"
tmp=
# The build before this one stays, for an orchestrator that is not upgraded yet; older ones go.
kept=0
for name in $(cd -- "$base" && ls -1t); do
  [ "${#name}" -eq 64 ] || continue
  case $name in *[!0-9a-f]* | "$sha") continue ;; esac
  kept=$((kept + 1))
  [ "$kept" -le 1 ] || rm -rf -- "${base:?}/$name"
done
say installed "$sha"
echo end
exec "$exe" "$@"
