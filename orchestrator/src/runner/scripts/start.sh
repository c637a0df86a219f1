# Looks for the runner and, when it is whole and "mode" is "start", becomes it: the warm path is
# this one command. Otherwise says what the host is. Changes nothing.
# arguments: work directory ('' for the default), SHA-256 of the runner, mode, then the runner's
# own arguments
base=$(work_directory "$1") sha=$2 mode=$3
shift 3
say() { printf '%s=%s\n' "$1" "$2"; }
exe=$base/$sha/remote-runner
if [ -f "$exe" ] && [ -x "$exe" ]; then
  found=$(digest "$exe")
  if [ "$found" = "$sha" ]; then
    say state ready
    if [ "$mode" = start ]; then
      echo end
      exec "$exe" "$@"
    fi
  else
    say state damaged
    say found "$found"
  fi
else
  say state absent
fi
say system "$(uname -s 2>/dev/null)"
say machine "$(uname -m 2>/dev/null)"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
say base "$base"
near=$base
while [ ! -d "$near" ] && [ "$near" != / ] && [ "$near" != . ]; do near=$(dirname -- "$near"); done
say near "$near"
if [ -w "$near" ]; then say writable yes; else say writable no; fi
say free_kib "$(free_kib "$near")"
if command -v gzip >/dev/null 2>&1; then say gzip yes; else say gzip no; fi
echo end
