# Receives the runner on standard input, checks it, and only then gives it its name.
# arguments: work directory ('' for the default), SHA-256 of the runner, its size in bytes,
# encoding of standard input (gzip or raw)
umask 077
base=$(work_directory "$1") sha=$2 size=$3 encoding=$4
tmp=
trap 'if [ -n "$tmp" ]; then rm -f -- "$tmp"; fi' EXIT
trap 'exit 1' HUP INT TERM PIPE
give_up() {
  printf 'failed=%s\nbase=%s\nfree_kib=%s\ndetail=%s\nend\n' "$1" "$base" \
    "$(free_kib "$base")" "$(printf '%s' "$2" | tr '\n' ' ')"
  exit 1
}
# What did not exist before us is noted, deepest first, so that a purge can take it away again.
created=
near=$base
while [ ! -e "$near" ] && [ "$near" != / ] && [ "$near" != . ]; do
  created="$created$near
"
  near=$(dirname -- "$near")
done
said=$(mkdir -p -- "$base" 2>&1) || give_up mkdir "$said"
said=$(chmod 700 -- "$base" 2>&1) || give_up owner "$said"
if [ -n "$created" ]; then
  said=$(printf '%s' "$created" 2>&1 >"$base/.created") || give_up write "$said"
fi
said=$(mkdir -p -- "$base/$sha" 2>&1) || give_up mkdir "$said"
tmp=$base/$sha/.upload.$$
case $encoding in
  gzip) said=$(gzip -dc 2>&1 >"$tmp") || give_up write "$said" ;;
  *) said=$(cat 2>&1 >"$tmp") || give_up write "$said" ;;
esac
got=$(wc -c <"$tmp")
[ "$((got))" -eq "$size" ] || give_up length "$((got)) bytes arrived instead of $size"
said=$(chmod 700 -- "$tmp" 2>&1) || give_up write "$said"
got=$(digest "$tmp")
[ "$got" = "$sha" ] || give_up digest "$got"
# It must run here: noexec mounts, an old C library and a foreign processor show at this point.
said=$("$tmp" --self-check 2>&1) || give_up run "$said"
[ "$said" = "$sha" ] || give_up run "$said"
said=$(mv -f -- "$tmp" "$base/$sha/remote-runner" 2>&1) || give_up write "$said"
tmp=
# The build before this one stays, for an orchestrator that is not upgraded yet; older ones go.
kept=0
for name in $(cd "$base" && ls -1t); do
  [ "${#name}" -eq 64 ] || continue
  case $name in *[!0-9a-f]* | "$sha") continue ;; esac
  kept=$((kept + 1))
  [ "$kept" -le 1 ] || rm -rf -- "${base:?}/$name"
done
printf 'installed=%s\nend\n' "$sha"
