#!/usr/bin/env bash
# Runs the SDKs and the agent programs that people use, unmodified, behind Toka and against scripts: each program writes a file in the workspace, runs a
# command, and ends with 0. They are large, and come from PyPI and npm: what cannot be installed is skipped, with the reason.
#
#   tests/clients.sh TOKA [NAME…]      TOKA is the binary; NAMEs are sdks, claude-code, codex, opencode, gemini-cli, aider;
#   all of them when there is none
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
toka=$(realpath "$1")
shift
names=("${@:-sdks claude-code codex opencode gemini-cli aider}")
declare -A packages=(
    [claude-code]=@anthropic-ai/claude-code [codex]=@openai/codex [opencode]=opencode-ai [gemini-cli]=@google/gemini-cli [aider]=aider-chat
)
# The version that a preset says it was tried with.
tried() { sed -n 's/^tried: "\(.*\)"$/\1/p' "$here/../crates/toka-workstream/src/presets/$1.yaml"; }
scratch=$(mktemp -d /var/tmp/toka-clients-XXXXXX)
trap 'rm -rf "$scratch"' EXIT

failed=0

sdks() {
    local workspace=$scratch/sdks
    mkdir -p "$workspace"
    if ! /usr/bin/python3 -m venv "$scratch/venv" >"$scratch/pip.log" 2>&1 ||
        ! "$scratch/venv/bin/pip" install -q --target "$workspace/lib" openai==3.57.0 anthropic==2.14.0 >>"$scratch/pip.log" 2>&1; then
        echo "sdks: skipped, PyPI gives nothing: $(tail -1 "$scratch/pip.log")"
        return
    fi
    cp "$here/clients/sdks.py" "$here/clients/sdks.script" "$workspace"
    cat >"$workspace/sdks.yaml" <<'YAML'
metadata: {name: sdks}
spec:
  model: {script: sdks.script}
  process: {command: [/usr/bin/python3, -B, sdks.py], environment: {PYTHONPATH: lib}}
security: {capabilities_required: [filesystem-read], resource_limits: {max_memory: 1GB, timeout: 5m}}
YAML
    if (cd "$workspace" && "$toka" run --state-dir "$scratch/state-sdks" --quiet sdks.yaml) >"$scratch/sdks.log" 2>&1; then
        echo "sdks: ok, openai 3.57.0, anthropic 2.14.0"
        same_bytes "$workspace"
    else
        echo "sdks: FAILED"
        cat "$scratch/sdks.log"
        (cd "$workspace" && "$toka" logs --state-dir "$scratch/state-sdks" 2>/dev/null) | tail -20
        failed=1
    fi
}

# What the SDKs send and get is the same, byte for byte, without Toka and through it; but for keys and headers of the connection.
same_bytes() {
    local workspace=$1 side
    cp "$here/clients/bytes.py" "$workspace"
    for side in direct through; do
        coproc SERVER { "$scratch/venv/bin/python" -B "$here/clients/bytes.py" serve "$scratch/$side.sent"; }
        local port pid=$SERVER_PID input=${SERVER[1]}
        read -r port <&"${SERVER[0]}"
        local url=http://127.0.0.1:$port
        if [[ $side == direct ]]; then
            OPENAI_BASE_URL=$url/v1 ANTHROPIC_BASE_URL=$url OPENAI_API_KEY=sk-direct ANTHROPIC_API_KEY=sk-direct PYTHONPATH=$workspace/lib \
                /usr/bin/python3 -B "$workspace/bytes.py" ask "$workspace/direct.got"
        else
            cat >"$scratch/policy.yaml" <<YAML
models:
  use: [chat/m, messages/m]
  providers: {chat: {wire: openai-chat, url: "$url"}, messages: {wire: anthropic, url: "$url"}}
YAML
            cat >"$workspace/bytes.yaml" <<'YAML'
metadata: {name: bytes}
spec:
  model: [chat/m, messages/m]
  process: {command: [/usr/bin/python3, -B, bytes.py, ask, through.got], environment: {PYTHONPATH: lib}}
security: {capabilities_required: [filesystem-read, filesystem-write], resource_limits: {max_memory: 1GB, timeout: 5m}}
YAML
            (cd "$workspace" && "$toka" run --state-dir "$scratch/state-bytes" --quiet --policy "$scratch/policy.yaml" --allow model-access bytes.yaml) ||
                (cd "$workspace" && "$toka" logs --state-dir "$scratch/state-bytes" 2>/dev/null | tail -20)
        fi
        exec {input}>&-
        wait "$pid" || true
    done
    if "$scratch/venv/bin/python" "$here/clients/bytes.py" compare "$scratch/direct.sent" "$scratch/through.sent" &&
        "$scratch/venv/bin/python" "$here/clients/bytes.py" compare "$workspace/direct.got" "$workspace/through.got"; then
        echo "bytes: the same, without Toka and through it"
    else
        echo "bytes: FAILED"
        failed=1
    fi
}

# Installs a program; says why it cannot.
install() {
    local package=${packages[$1]}
    if [[ $1 == aider ]]; then
        { /usr/bin/python3 -m venv "$scratch/programs/aider" && "$scratch/programs/aider/bin/pip" install -q "$package==$(tried "$1")"; } >"$scratch/install.log" 2>&1
    else
        npm install --silent --no-fund --no-audit --prefix "$scratch/programs" "$package@$(tried "$1")" >"$scratch/install.log" 2>&1
    fi || { echo "$1: skipped, $package $(tried "$1") cannot be installed: $(tail -n1 "$scratch/install.log")" && return 1; }
}

for name in ${names[*]}; do
    if [[ $name == sdks ]]; then
        sdks
        continue
    fi
    workspace=$scratch/$name
    mkdir -p "$workspace/agents" "$scratch/programs"
    install "$name" || continue
    "$toka" init --agent "$name" "$workspace/agents" >/dev/null
    sed "s|WORKSPACE|$workspace|" "$here/clients/$name.script" >"$workspace/answers.script"
    # The script in the place of the model.
    sed -i -E 's|^  model: .*|  model: {script: answers.script}|' "$workspace/agents/$name.yaml"
    if (cd "$workspace" && PATH="$scratch/programs/node_modules/.bin:$scratch/programs/aider/bin:$PATH" TOKA_TRUST=all \
        "$toka" run --state-dir "$scratch/state-$name" --quiet agents) >"$scratch/$name.log" 2>&1 &&
        [[ $(cat "$workspace/hello.txt") == "hello from a script" ]]; then
        echo "$name: ok, $(tried "$name")"
    else
        echo "$name: FAILED"
        cat "$scratch/$name.log"
        "$toka" logs --state-dir "$scratch/state-$name" --project "$name" 2>/dev/null | tail -20 | cut -c1-400
        failed=1
    fi
done
exit "$failed"
