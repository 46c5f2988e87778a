#!/bin/sh
# Puts syncd onto a machine, and takes it off again: what `make install`, `make account`,
# `make rollback` and `make uninstall` do.
#
#   DESTDIR        stands for /, for packagers: then nothing else is touched, and nothing started
#   PREFIX         /usr/local: the command, units, man page, completions, samples
#   APP            /opt/syncd: the virtual environment
#   SYSTEM_PYTHON  the interpreter to build on, where the system's own is not to be
set -eu
umask 022
cd "$(dirname "$0")/.."

DESTDIR=${DESTDIR:-} PREFIX=${PREFIX:-/usr/local} APP=${APP:-/opt/syncd}
app=$DESTDIR$APP prefix=$DESTDIR$PREFIX etc=$DESTDIR/etc
bash_completions=$prefix/share/bash-completion/completions
zsh_completions=$prefix/share/zsh/site-functions
fish_completions=$prefix/share/fish/vendor_completions.d

fail() {
    echo "make: $*" >&2
    exit 1
}

# Whether this is the machine that syncd is to run on, now.
is_here() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

need_root() {
    [ -n "$DESTDIR" ] || [ "$(id -u)" = 0 ] || fail "this writes to $APP, $PREFIX and /etc: sudo make $1"
}

# The unit hides /home and /root, so the interpreter must not live there.
python() {
    for name in ${SYSTEM_PYTHON:-/usr/bin/python3 /usr/bin/python3.1[1-9] /usr/local/bin/python3}; do
        case $(readlink -f "$name" 2>/dev/null) in
        "" | /home/* | /root/* | /run/user/*) continue ;;
        esac
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer with venv outside /home and /root:" \
        "apt install python3 python3-venv, or name one: SYSTEM_PYTHON=/path/to/python3"
}

install_() {
    need_root install
    interpreter=$(python)
    new=$app/venv.new
    sources=$(mktemp -d)
    trap 'rm -rf "$sources" "$new"' EXIT
    trap 'exit 130' INT TERM

    echo "installing into $app/venv, on $interpreter"
    # From a copy: building would leave folders of root's in this one.
    cp -R pyproject.toml README.md LICENSE syncd "$sources"
    rm -rf "$new"
    "$interpreter" -m venv "$new"
    pip_install "$sources[speed]" ||
        { echo "trying again without uvloop, which is optional" >&2 && pip_install "$sources"; }
    # It was built beside the one in use; its scripts are to say where it will be.
    grep -rlIF -- "$new" "$new/bin" "$new/pyvenv.cfg" | xargs sed -i "s|$new|$APP/venv|g"

    install -d "$prefix/share/syncd" "$etc/syncd"
    sample "$new" syncd >"$sources/syncd.toml"
    settings "$sources/syncd.toml"
    install -m 644 systemd/address-filter.conf systemd/rows.conf "$prefix/share/syncd"
    place "systemd/syncd.service" "$prefix/lib/systemd/system/syncd.service"
    place "systemd/syncd@.service" "$prefix/lib/systemd/system/syncd@.service"
    place systemd/syncd.sysusers.conf "$prefix/lib/sysusers.d/syncd.conf"
    place systemd/syncd.tmpfiles.conf "$prefix/lib/tmpfiles.d/syncd.conf"
    place systemd/syncd.8 "$prefix/share/man/man8/syncd.8"
    install -d "$bash_completions" "$zsh_completions" "$fish_completions"
    completion bash >"$bash_completions/syncd"
    completion zsh >"$zsh_completions/_syncd"
    completion fish >"$fish_completions/syncd.fish"

    # All is ready: now the new one takes the place of the old one, which is kept for a rollback.
    if [ -d "$app/venv" ]; then
        rm -rf "$app/venv.old"
        mv "$app/venv" "$app/venv.old"
    fi
    mv "$new" "$app/venv"
    install -d "$prefix/bin"
    ln -sfn "$APP/venv/bin/syncd" "$prefix/bin/syncd"

    if is_here; then
        systemd-sysusers "$PREFIX/lib/sysusers.d/syncd.conf"
        systemd-tmpfiles --create "$PREFIX/lib/tmpfiles.d/syncd.conf"
        systemctl daemon-reload
    fi
    installed
}

pip_install() (
    # pip complains about a cache that it may not write to: a HOME that is someone else's.
    [ -O "$HOME" ] || export PIP_NO_CACHE_DIR=1
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    "$new/bin/python" -m pip install --quiet --no-input -c constraints.txt "$1"
)

# The settings of the service NAME ("syncd", or "syncd-" and an account's) with its places set.
# -P, here and below: by what is installed there, not by the sources in this folder.
sample() {
    "$1/bin/python" -P -m syncd.config.sample "store.path=/var/lib/$2/syncd.db" \
        "spool.path=/var/spool/$2" "control.socket=/run/$2/syncd.sock"
}

# The new sample is for comparison; it is also put into use, unless somebody has edited that file.
settings() {
    used=$etc/syncd/syncd.toml kept=$prefix/share/syncd/syncd.toml
    if [ ! -e "$used" ] || cmp -s "$used" "$kept"; then
        install -m 644 "$1" "$used"
    elif ! cmp -s "$used" "$1"; then
        echo "kept your $used; the new sample is $kept"
    fi
    install -m 644 "$1" "$kept"
}

place() {
    install -d "$(dirname "$2")"
    sed "s|/opt/syncd/|$APP/|g" "$1" >"$2"
    chmod 644 "$2"
}

completion() { _SYNCD_COMPLETE=$1_source "$new/bin/python" -P -m syncd; }

installed() {
    echo "installed $("$app/venv/bin/python" -P -m syncd --version)"
    is_here || return 0
    if systemctl --quiet is-active 'syncd*.service'; then
        echo "what runs is still the one from before: sudo systemctl restart syncd"
    elif [ ! -e /etc/syncd/token ]; then
        echo "next, the API token (paste it, Enter, Ctrl-D):"
        echo "  sudo install -m 600 /dev/stdin /etc/syncd/token"
        echo "  sudo systemctl enable --now syncd"
    else
        echo "next: sudo systemctl enable --now syncd"
    fi
}

# Settings and a spool for syncd@NAME.
account() {
    need_root "account NAME=${NAME:-acme}"
    case ${NAME:-} in
    "" | syncd | *[!a-z0-9_]*) fail "say NAME=…: small letters, digits and _, such as NAME=acme" ;;
    esac
    [ -x "$app/venv/bin/python" ] || fail "syncd is not installed in $APP: sudo make install"
    settings=$etc/syncd/$NAME.toml
    [ ! -e "$settings" ] || fail "$settings is there already"
    install -d "$etc/syncd" "$etc/tmpfiles.d"
    sample "$app/venv" "syncd-$NAME" >"$settings"
    sed "s|/var/spool/syncd|/var/spool/syncd-$NAME|" systemd/syncd.tmpfiles.conf \
        >"$etc/tmpfiles.d/syncd-$NAME.conf"
    if is_here; then systemd-tmpfiles --create "/etc/tmpfiles.d/syncd-$NAME.conf"; fi
    echo "made $settings and the spool; next:"
    echo "  sudo install -m 600 /dev/stdin /etc/syncd/$NAME.token"
    echo "  sudo systemctl enable --now syncd@$NAME"
    echo "  syncd --config /etc/syncd/$NAME.toml status"
}

rollback() {
    need_root rollback
    [ -d "$app/venv.old" ] || fail "there is nothing from before in $APP"
    mv "$app/venv.old" "$app/venv.new"
    mv "$app/venv" "$app/venv.old"
    mv "$app/venv.new" "$app/venv"
    installed
}

uninstall() {
    need_root uninstall
    if is_here; then
        units=$(systemctl list-units --all --plain --no-legend 'syncd@*.service' | cut -d' ' -f1)
        # shellcheck disable=SC2086  one word for each unit
        systemctl --quiet disable --now syncd.service $units 2>/dev/null || true
    fi
    rm -rf "$app/venv" "$app/venv.old" "$app/venv.new" "$prefix/share/syncd"
    rm -f "$prefix/bin/syncd" "$prefix/lib/systemd/system/syncd.service" \
        "$prefix/lib/systemd/system/syncd@.service" "$prefix/lib/sysusers.d/syncd.conf" \
        "$prefix/lib/tmpfiles.d/syncd.conf" "$prefix/share/man/man8/syncd.8" \
        "$bash_completions/syncd" "$zsh_completions/_syncd" "$fish_completions/syncd.fish"
    if [ -d "$app" ]; then rmdir --ignore-fail-on-non-empty "$app"; fi
    if is_here; then systemctl daemon-reload; fi
    echo "uninstalled; left alone: the settings and the token in $etc/syncd, the data in" \
        "$DESTDIR/var/lib/syncd* and $DESTDIR/var/spool/syncd*, the user and group syncd"
}

case ${1:-} in
install) install_ ;;
account | rollback | uninstall) "$1" ;;
*) fail "$0 install | account | rollback | uninstall" ;;
esac
