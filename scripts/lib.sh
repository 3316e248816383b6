# Shared by the scripts; sourced, not run.

# The interpreter to build the environment with: $PYTHON, else the first Python 3.11 on the path.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3 python}; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "No Python 3.11 was found. Install it, or name it: make setup PYTHON=/path/to/python3.11" >&2
  return 1
}

# Runs a command and says how long it took.
timed() {
  local name="$1" start=$SECONDS rc=0
  shift
  echo "== $name"
  "$@" || rc=$?
  echo "== $name: $((SECONDS - start)) s"
  return "$rc"
}
