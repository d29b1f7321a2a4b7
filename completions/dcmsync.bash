# bash completion for dcmsync; generated from the option rows by `make pages`; do not edit

_dcmsync_endpoints() {
    local config="${DCMSYNC_CONFIG:-${XDG_CONFIG_HOME:-$HOME/.config}/dcmsync/config.toml}"
    [ -r "$config" ] && sed -n 's/^\[endpoints\.\"\{0,1\}\([A-Za-z0-9_.-]*\)\"\{0,1\}\].*/\1/p' "$config"
}

_dcmsync_fill() {
    local kind=$1 word=$2 IFS=$'\n'
    case $kind in
        file) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$word")) ;;
        directory) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$word")) ;;
        endpoint)
            compopt -o filenames 2>/dev/null
            COMPREPLY=($(compgen -W "$(_dcmsync_endpoints)" -- "$word") $(compgen -d -- "$word")) ;;
        keyword)
            compopt -o nospace 2>/dev/null
            COMPREPLY=($(IFS=' '; compgen -S = -W "AccessionNumber BodyPartExamined InstanceNumber InstitutionName Manufacturer ManufacturerModelName Modality ModalitiesInStudy NumberOfSeriesRelatedInstances NumberOfStudyRelatedInstances NumberOfStudyRelatedSeries PatientBirthDate PatientID PatientName PatientSex ProtocolName ReferringPhysicianName SOPClassUID SOPInstanceUID SeriesDate SeriesDescription SeriesInstanceUID SeriesNumber SeriesTime StationName StudyDate StudyDescription StudyID StudyInstanceUID StudyTime TransferSyntaxUID" -- "$word")) ;;
        words:*) COMPREPLY=($(IFS=' '; compgen -W "${kind#words:}" -- "$word")) ;;
    esac
}

_dcmsync() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}
    local options= values= places= index=0 skip= each kind=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        _dcmsync_fill "words:query filter diff pull push sync verify dump echo doctor serve route cache config demo schema help --help --version" "$word"
        return
    fi
    # "=" breaks words: --option=value and KEY=value come as three.
    if [ "$word" = "=" ]; then
        word=
    elif [ "$before" = "=" ]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $verb in
        help) [ "$COMP_CWORD" -eq 2 ] && _dcmsync_fill "words:query filter diff pull push sync verify dump echo doctor serve route cache config demo schema" "$word"; return ;;
        query)
            options='--level --since --until --return --all --fuzzy --relational --format --cache --no-cache --timeout --calling --require-end --config -q --quiet -v --verbose --log-format -h --help'
            values=' --level --since --until --return --format --cache --timeout --calling --config --log-format '
            places='endpoint keyword'
            case $before in
                --level) kind='words:patient study series instance' ;;
                --since) kind='none' ;;
                --until) kind='none' ;;
                --return) kind='keyword' ;;
                --format) kind='words:ndjson tree table csv uids' ;;
                --cache) kind='file' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        filter)
            options='--any --not --smallest --largest --newest --per --max-images --since --until --shard --sample --explain --require-end --config -q --quiet -v --verbose --log-format -h --help'
            values=' --smallest --largest --newest --per --max-images --since --until --shard --sample --config --log-format '
            places='keyword'
            case $before in
                --smallest) kind='none' ;;
                --largest) kind='none' ;;
                --newest) kind='none' ;;
                --per) kind='words:patient study' ;;
                --max-images) kind='none' ;;
                --since) kind='none' ;;
                --until) kind='none' ;;
                --shard) kind='none' ;;
                --sample) kind='none' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        diff)
            options='--trust --show --since --until --all --cache --no-cache --format --timeout --calling --require-end --config -q --quiet -v --verbose --log-format -h --help'
            values=' --trust --show --since --until --cache --format --timeout --calling --config --log-format '
            places='endpoint endpoint keyword'
            case $before in
                --trust) kind='words:counts uids content' ;;
                --show) kind='none' ;;
                --since) kind='none' ;;
                --until) kind='none' ;;
                --cache) kind='file' ;;
                --format) kind='words:ndjson tree table csv uids' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        pull)
            options='--metadata --layout --link --symlink --move --itemize -i --force -f -n --dry-run --jobs -j --format --cache --no-cache --via --port --bwlimit --max-duration --max-transfer --timeout --calling --edit --edit-file --remap-uids --salt-file --keep-originals --require-end --config -q --quiet -v --verbose --log-format -h --help'
            values=' --layout --jobs -j --format --cache --via --port --bwlimit --max-duration --max-transfer --timeout --calling --edit --edit-file --salt-file --config --log-format '
            places='directory'
            case $before in
                --layout) kind='none' ;;
                --jobs|-j) kind='none' ;;
                --format) kind='words:ndjson tree table csv uids' ;;
                --cache) kind='file' ;;
                --via) kind='words:get move' ;;
                --port) kind='none' ;;
                --bwlimit) kind='none' ;;
                --max-duration) kind='none' ;;
                --max-transfer) kind='none' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --edit) kind='keyword' ;;
                --edit-file) kind='file' ;;
                --salt-file) kind='file' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        push)
            options='--itemize -i --force -f --trust --verify -n --dry-run --jobs -j --format --cache --no-cache --via --port --bwlimit --max-duration --max-transfer --timeout --calling --edit --edit-file --remap-uids --salt-file --keep-originals --require-end --config -q --quiet -v --verbose --log-format -h --help'
            values=' --trust --verify --jobs -j --format --cache --via --port --bwlimit --max-duration --max-transfer --timeout --calling --edit --edit-file --salt-file --config --log-format '
            places='endpoint file'
            case $before in
                --trust) kind='words:counts uids content' ;;
                --verify) kind='words:none uids content commit' ;;
                --jobs|-j) kind='none' ;;
                --format) kind='words:ndjson tree table csv uids' ;;
                --cache) kind='file' ;;
                --via) kind='words:get move' ;;
                --port) kind='none' ;;
                --bwlimit) kind='none' ;;
                --max-duration) kind='none' ;;
                --max-transfer) kind='none' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --edit) kind='keyword' ;;
                --edit-file) kind='file' ;;
                --salt-file) kind='file' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        sync)
            options='--route --to --where --since --until --all --trust --verify --delete --max-delete --layout --link --symlink --move --itemize -i --force -f -n --dry-run --jobs -j --format --cache --no-cache --via --port --bwlimit --max-duration --max-transfer --timeout --calling --edit --edit-file --remap-uids --salt-file --keep-originals --config -q --quiet -v --verbose --log-format -h --help'
            values=' --route --to --where --since --until --trust --verify --max-delete --layout --jobs -j --format --cache --via --port --bwlimit --max-duration --max-transfer --timeout --calling --edit --edit-file --salt-file --config --log-format '
            places='endpoint'
            case $before in
                --route) kind='none' ;;
                --to) kind='directory' ;;
                --where) kind='keyword' ;;
                --since) kind='none' ;;
                --until) kind='none' ;;
                --trust) kind='words:counts uids content' ;;
                --verify) kind='words:none uids content commit' ;;
                --max-delete) kind='none' ;;
                --layout) kind='none' ;;
                --jobs|-j) kind='none' ;;
                --format) kind='words:ndjson tree table csv uids' ;;
                --cache) kind='file' ;;
                --via) kind='words:get move' ;;
                --port) kind='none' ;;
                --bwlimit) kind='none' ;;
                --max-duration) kind='none' ;;
                --max-transfer) kind='none' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --edit) kind='keyword' ;;
                --edit-file) kind='file' ;;
                --salt-file) kind='file' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        verify)
            options='--at --read-data --sample --itemize -i --cache --no-cache --format --timeout --calling --require-end --config -q --quiet -v --verbose --log-format -h --help'
            values=' --at --sample --cache --format --timeout --calling --config --log-format '
            places=''
            case $before in
                --at) kind='endpoint' ;;
                --sample) kind='none' ;;
                --cache) kind='file' ;;
                --format) kind='words:ndjson tree table csv uids' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        dump)
            options='--include --exclude --bulk --diff --with-path --format --require-end --config -q --quiet -v --verbose --log-format -h --help'
            values=' --include --exclude --bulk --format --config --log-format '
            places='file'
            case $before in
                --include) kind='keyword' ;;
                --exclude) kind='keyword' ;;
                --bulk) kind='words:cut base64 none' ;;
                --format) kind='words:json text' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        echo)
            options='--timeout --calling --config -q --quiet -v --verbose --log-format -h --help'
            values=' --timeout --calling --config --log-format '
            places='endpoint'
            case $before in
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        doctor)
            options='--deep --write --format --port --timeout --calling --config -q --quiet -v --verbose --log-format -h --help'
            values=' --write --format --port --timeout --calling --config --log-format '
            places='endpoint keyword'
            case $before in
                --write) kind='none' ;;
                --format) kind='words:text ndjson' ;;
                --port) kind='none' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        serve)
            options='--ae --port --bind --allow --allow-from --allow-any --tls --certificate --key --ca --require-identity --max-associations --destination --http --rescan --timeout --config -q --quiet -v --verbose --log-format -h --help'
            values=' --ae --port --bind --allow --allow-from --certificate --key --ca --max-associations --destination --http --rescan --timeout --config --log-format '
            places='directory'
            case $before in
                --ae) kind='none' ;;
                --port) kind='none' ;;
                --bind) kind='none' ;;
                --allow) kind='none' ;;
                --allow-from) kind='none' ;;
                --certificate) kind='file' ;;
                --key) kind='file' ;;
                --ca) kind='file' ;;
                --max-associations) kind='none' ;;
                --destination) kind='endpoint' ;;
                --http) kind='none' ;;
                --rescan) kind='none' ;;
                --timeout) kind='none' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        route)
            options='--spool --ae --port --bind --allow --allow-from --allow-any --tls --certificate --key --ca --require-identity --max-associations --inactive-timeout --layout --verify --jobs -j --timeout --calling --config -q --quiet -v --verbose --log-format -h --help'
            values=' --spool --ae --port --bind --allow --allow-from --certificate --key --ca --max-associations --inactive-timeout --layout --verify --jobs -j --timeout --calling --config --log-format '
            places='none'
            case $before in
                --spool) kind='directory' ;;
                --ae) kind='none' ;;
                --port) kind='none' ;;
                --bind) kind='none' ;;
                --allow) kind='none' ;;
                --allow-from) kind='none' ;;
                --certificate) kind='file' ;;
                --key) kind='file' ;;
                --ca) kind='file' ;;
                --max-associations) kind='none' ;;
                --inactive-timeout) kind='none' ;;
                --layout) kind='none' ;;
                --verify) kind='words:none uids content commit' ;;
                --jobs|-j) kind='none' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        cache)
            options='--sample --itemize -i --cache --format --config -q --quiet -v --verbose --log-format -h --help'
            values=' --sample --cache --format --config --log-format '
            places='none file'
            case $before in
                --sample) kind='none' ;;
                --cache) kind='file' ;;
                --format) kind='words:ndjson tree table csv uids' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        config)
            options='--show-origin --format --timeout --calling --jobs -j --via --config -q --quiet -v --verbose --log-format -h --help'
            values=' --format --timeout --calling --jobs -j --via --config --log-format '
            places='none endpoint'
            case $before in
                --format) kind='words:toml json' ;;
                --timeout) kind='none' ;;
                --calling) kind='none' ;;
                --jobs|-j) kind='none' ;;
                --via) kind='words:get move' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        demo)
            options='--keep --config -q --quiet -v --verbose --log-format -h --help'
            values=' --keep --config --log-format '
            places=''
            case $before in
                --keep) kind='directory' ;;
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        schema)
            options='--config -q --quiet -v --verbose --log-format -h --help'
            values=' --config --log-format '
            places=''
            case $before in
                --config) kind='file' ;;
                --log-format) kind='words:text json' ;;
            esac ;;
        *) return ;;
    esac
    if [ -n "$kind" ]; then
        _dcmsync_fill "$kind" "$word"
        return
    fi
    case $word in
        -*) _dcmsync_fill "words:$options" "$word"; return ;;
    esac
    case ${COMP_WORDS[COMP_CWORD]}$before in
        =*) return ;;
    esac
    [ "${COMP_WORDS[COMP_CWORD-1]}" = "=" ] && return
    for each in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
        if [ -n "$skip" ]; then
            skip=
        elif [[ $values == *" $each "* ]]; then
            skip=yes
        elif [[ $each != -* || $each == - ]]; then
            index=$((index + 1))
        fi
    done
    local kinds=($places)
    [ "${#kinds[@]}" -eq 0 ] && return
    [ "$index" -ge "${#kinds[@]}" ] && index=$((${#kinds[@]} - 1))
    _dcmsync_fill "${kinds[index]}" "$word"
}

complete -F _dcmsync dcmsync
