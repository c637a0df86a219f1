# Takes away what was ever received and nothing else.
# argument: work directory ('' for the default)
removed=0
if [ -d "$base" ]; then
  for name in $(cd -- "$base" && ls -1); do
    [ "${#name}" -eq 64 ] || continue
    case $name in *[!0-9a-f]*) continue ;; esac
    rm -rf -- "${base:?}/$name" && removed=$((removed + 1))
  done
  made=$(cat -- "$base/.created" 2>/dev/null)
  rm -f -- "$base/.created"
  # A directory that holds anything else, or that was there before us, stays.
  printf '%s\n' "$made" | while IFS= read -r name; do
    if [ -n "$name" ]; then rmdir -- "$name" 2>/dev/null; fi
  done
fi
printf 'removed=%s\nbase=%s\n' "$removed" "$base"
if [ -d "$base" ]; then printf 'left=%s\n' "$(ls -1A -- "$base" | wc -l | tr -d ' ')"; fi
echo end
