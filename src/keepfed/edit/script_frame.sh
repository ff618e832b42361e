#!/bin/sh
# Made by keepfed set --script.
# sh THIS_FILE          changes the places below; a backup stays beside every file
# sh THIS_FILE --undo   puts the backups back
# Exit status: 0 done, 1 a file is not as expected (nothing is changed), 2 a file could not be written (put back)
set -u
umask 077
LC_ALL=C
export LC_ALL

@WORDS@

tell() { printf 'keepfed: %s: %s\n' "$1" "$2" >&2; }

# The first way at hand to recognise a file: SHA-256 (GNU, busybox; Perl's on macOS), else the checksum of POSIX.
way=
for way_name in sha256sum shasum cksum; do
    if [ -z "$way" ] && printf x | "$way_name" > /dev/null 2>&1; then way=$way_name; fi
done

# state FILE: what it holds, as one word
state() {
    case $way in
        sha256sum) state_all=$(sha256sum < "$1") ;;
        shasum) state_all=$(shasum -a 256 < "$1") ;;
        *) state_all=$(cksum < "$1") ;;
    esac || return 1
    set -- $state_all
    if [ "$way" = cksum ]; then printf '%s-%s\n' "$1" "$2"; else printf '%s\n' "$1"; fi
}

# pick SHA256 CHECKSUM-SIZE: the one that state would say
pick() {
    if [ "$way" = cksum ]; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi
}

# replace START END OLD NEW: bytes [START, END) of $work, which have to be OLD, become NEW
replace() {
    printf "$3" > "$work.old" || return 1
    : > "$work.found" || return 1
    if [ "$2" -gt "$1" ]; then
        tail -c "+$(($1 + 1))" "$work" | dd bs=1 "count=$(($2 - $1))" 2> /dev/null > "$work.found" || return 1
    fi
    cmp -s "$work.old" "$work.found" || return 1
    (
        if [ "$1" -gt 0 ]; then dd if="$work" "bs=$1" count=1 2> /dev/null || exit 1; fi
        printf "$4" || exit 1
        tail -c "+$(($2 + 1))" "$work" || exit 1
    ) > "$work.new" || return 1
    cat "$work.new" > "$work"
}

# The file itself where a symbolic link was named: the link has to stay.
real() {
    real_name=$1
    while [ -h "$real_name" ]; do
        real_link=$(readlink "$real_name") || return 1
        case $real_link in
            /*) real_name=$real_link ;;
            *) real_name=$(dirname "$real_name")/$real_link ;;
        esac
    done
}

names() {
    real "$1" || return 2
    names_tag=${2%"${2#????????????}"}
    [ -n "$names_tag" ] || names_tag=$2
    work="$real_name.keepfed-new-$names_tag"
    kept="$real_name.keepfed-old-$names_tag"
}

# Each step is called as: STEP FILE OLD NEW EDITS, the two in the middle as state says them
check() {
    if [ ! -f "$1" ]; then tell "$1" "$absent"; return 1; fi
    found=$(state "$1") || return 1
    if [ "$found" = "$3" ]; then return 0; fi
    if [ "$found" != "$2" ]; then tell "$1" "$differs"; return 1; fi
    if [ ! -w "$1" ]; then tell "$1" "$failed"; return 2; fi
}

prepare() {
    if [ "$(state "$1")" = "$3" ]; then return 0; fi
    names "$1" "$2" || return 2
    cp -p "$real_name" "$work" && "$4" && [ "$(state "$work")" = "$3" ] && cp -p "$real_name" "$kept" || {
        tell "$1" "$failed"
        return 2
    }
}

put() {
    if [ "$(state "$1")" = "$3" ]; then tell "$1" "$already"; return 0; fi
    names "$1" "$2" || return 2
    if [ "$(state "$1")" != "$2" ]; then tell "$1" "$differs"; return 1; fi
    mv -f "$work" "$real_name" && [ "$(state "$1")" = "$3" ] || { tell "$1" "$failed"; return 2; }
    changed="$changed$1|"
    tell "$1" "$done"
    tell "$kept" "$backup"
}

# What this very run has moved into place goes back; a backup of what stayed as it was is none.
roll_back() {
    case $changed in
        *"|$1|"*) go_back "$@" ;;
    esac
    names "$1" "$2" && [ "$(state "$1")" = "$2" ] && rm -f "$kept"
    return 0
}

clean() {
    names "$1" "$2" && rm -f "$work" "$work.old" "$work.found" "$work.new"
    return 0
}

can_go_back() {
    names "$1" "$2" || return 2
    found=$(state "$1") || return 1
    if [ "$found" = "$2" ]; then return 0; fi
    if [ "$found" != "$3" ]; then tell "$1" "$differs"; return 1; fi
    if [ ! -f "$kept" ] || [ "$(state "$kept")" != "$2" ]; then tell "$1" "$no_backup"; return 1; fi
}

go_back() {
    names "$1" "$2" || return 2
    if [ "$(state "$1")" = "$2" ]; then rm -f "$kept"; return 0; fi
    [ "$(state "$1")" = "$3" ] && [ -f "$kept" ] || return 0
    mv -f "$kept" "$real_name" && [ "$(state "$1")" = "$2" ] || { tell "$1" "$failed"; return 2; }
    tell "$1" "$undone"
}

@EDITS@

if [ -z "$way" ]; then tell 'sha256sum, cksum' "$no_cksum"; exit 2; fi
changed='|'
trap 'every_file roll_back; every_file clean; exit 2' HUP INT TERM
case ${1-} in
    --undo)
        every_file can_go_back || exit $?
        every_file go_back
        exit $?
        ;;
    '')
        every_file check || exit $?
        every_file prepare || { code=$?; every_file roll_back; every_file clean; exit "$code"; }
        every_file put || { code=$?; every_file roll_back; every_file clean; exit "$code"; }
        every_file clean
        exit 0
        ;;
    *)
        printf '%s\n' "$usage" >&2
        exit 2
        ;;
esac
