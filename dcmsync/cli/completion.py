"""Completions for bash, zsh and fish, made from the rows of the verbs.

Each script knows the verbs, their options, the choices of an option, and what stands where: files, folders, the
endpoints named in the configuration, or `Keyword=` for the keys of a query. None of them runs dcmsync.
"""

from collections.abc import Iterable, Sequence

from dcmsync.cli.help import HELP
from dcmsync.cli.parse import is_switch, optionals, positionals
from dcmsync.commands.options import Command, Option

# The keys that people match by: those of the query levels (PS3.4 §C.6.2.1), and common others of the records.
KEYWORDS = (
    "AccessionNumber BodyPartExamined InstanceNumber InstitutionName Manufacturer ManufacturerModelName Modality "
    "ModalitiesInStudy NumberOfSeriesRelatedInstances NumberOfStudyRelatedInstances NumberOfStudyRelatedSeries "
    "PatientBirthDate PatientID PatientName PatientSex ProtocolName ReferringPhysicianName SOPClassUID SOPInstanceUID "
    "SeriesDate SeriesDescription SeriesInstanceUID SeriesNumber SeriesTime StationName StudyDate StudyDescription "
    "StudyID StudyInstanceUID StudyTime TransferSyntaxUID"
)

_HEADER = "generated from the option rows by `make pages`; do not edit"
_ENDPOINTS = r"s/^\[endpoints\.\"\{0,1\}\([A-Za-z0-9_.-]*\)\"\{0,1\}\].*/\1/p"


def bash(commands: Sequence[Command]) -> str:
    """completions/dcmsync.bash"""
    verbs = " ".join(each.name for each in commands)
    cases = "\n".join(_bash_case(each) for each in commands)
    return f"""\
# bash completion for dcmsync; {_HEADER}

_dcmsync_endpoints() {{
    local config="${{DCMSYNC_CONFIG:-${{XDG_CONFIG_HOME:-$HOME/.config}}/dcmsync/config.toml}}"
    [ -r "$config" ] && sed -n '{_ENDPOINTS}' "$config"
}}

_dcmsync_fill() {{
    local kind=$1 word=$2 IFS=$'\\n'
    case $kind in
        file) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$word")) ;;
        directory) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$word")) ;;
        endpoint)
            compopt -o filenames 2>/dev/null
            COMPREPLY=($(compgen -W "$(_dcmsync_endpoints)" -- "$word") $(compgen -d -- "$word")) ;;
        keyword)
            compopt -o nospace 2>/dev/null
            COMPREPLY=($(IFS=' '; compgen -S = -W "{KEYWORDS}" -- "$word")) ;;
        words:*) COMPREPLY=($(IFS=' '; compgen -W "${{kind#words:}}" -- "$word")) ;;
    esac
}}

_dcmsync() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}}
    local options= values= places= index=0 skip= each kind=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        _dcmsync_fill "words:{verbs} help --help --version" "$word"
        return
    fi
    # "=" breaks words: --option=value and KEY=value come as three.
    if [ "$word" = "=" ]; then
        word=
    elif [ "$before" = "=" ]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    case $verb in
        help) [ "$COMP_CWORD" -eq 2 ] && _dcmsync_fill "words:{verbs}" "$word"; return ;;
{cases}
        *) return ;;
    esac
    if [ -n "$kind" ]; then
        _dcmsync_fill "$kind" "$word"
        return
    fi
    case $word in
        -*) _dcmsync_fill "words:$options" "$word"; return ;;
    esac
    case ${{COMP_WORDS[COMP_CWORD]}}$before in
        =*) return ;;
    esac
    [ "${{COMP_WORDS[COMP_CWORD-1]}}" = "=" ] && return
    for each in "${{COMP_WORDS[@]:2:COMP_CWORD-2}}"; do
        if [ -n "$skip" ]; then
            skip=
        elif [[ $values == *" $each "* ]]; then
            skip=yes
        elif [[ $each != -* || $each == - ]]; then
            index=$((index + 1))
        fi
    done
    local kinds=($places)
    [ "${{#kinds[@]}}" -eq 0 ] && return
    [ "$index" -ge "${{#kinds[@]}}" ] && index=$((${{#kinds[@]}} - 1))
    _dcmsync_fill "${{kinds[index]}}" "$word"
}}

complete -F _dcmsync dcmsync
"""


def zsh(commands: Sequence[Command]) -> str:
    """completions/_dcmsync"""
    verbs = "\n".join(f"        {_quoted(each.name + ':' + _zsh_plain(each.summary))}" for each in commands)
    functions = "\n\n".join(_zsh_function(each) for each in commands)
    cases = "\n".join(f"                {each.name}) _dcmsync_{each.name} ;;" for each in commands)
    return f"""\
#compdef dcmsync
# zsh completion for dcmsync; {_HEADER}

_dcmsync_endpoints() {{
    local config=${{DCMSYNC_CONFIG:-${{XDG_CONFIG_HOME:-$HOME/.config}}/dcmsync/config.toml}}
    local -a names
    [[ -r $config ]] && names=(${{(f)"$(sed -n '{_ENDPOINTS}' $config)"}})
    (( $#names )) && compadd -X endpoint -a names
    _files -/
}}

_dcmsync_keywords() {{
    compset -P '*=' && return
    compadd -S = {KEYWORDS}
}}

_dcmsync_verbs() {{
    local -a verbs
    verbs=(
{verbs}
    )
    _describe verb verbs
}}

{functions}

_dcmsync() {{
    local context state line curcontext=$curcontext
    local -A opt_args
    _arguments -C '(- *)'{{-h,--help}}'[show this help]' '(- *)--version[show the version]' \\
        '1:verb:->verb' '*::argument:->rest' && return
    case $state in
        verb) _dcmsync_verbs ;;
        rest)
            case $words[1] in
{cases}
                help) _dcmsync_verbs ;;
            esac ;;
    esac
}}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _dcmsync "$@"
else
    compdef _dcmsync dcmsync
fi
"""


def fish(commands: Sequence[Command]) -> str:
    """completions/dcmsync.fish"""
    lines = [
        f"# fish completion for dcmsync; {_HEADER}",
        "",
        "function __dcmsync_no_verb",
        "    test (count (commandline -opc)) -eq 1",
        "end",
        "",
        "function __dcmsync_verb",
        "    set -l words (commandline -opc)",
        "    test (count $words) -ge 2; and test $words[2] = $argv[1]",
        "end",
        "",
        "function __dcmsync_endpoints",
        "    set -l config $DCMSYNC_CONFIG",
        '    test -n "$config"; or set config $XDG_CONFIG_HOME/dcmsync/config.toml',
        '    test -n "$DCMSYNC_CONFIG$XDG_CONFIG_HOME"; or set config $HOME/.config/dcmsync/config.toml',
        f"    test -r $config; and sed -n '{_ENDPOINTS}' $config",
        "    __fish_complete_directories (commandline -ct)",
        "end",
        "",
        "complete -c dcmsync -f",
        "complete -c dcmsync -n __dcmsync_no_verb -s h -l help -d 'show this help'",
        "complete -c dcmsync -n __dcmsync_no_verb -l version -d 'show the version'",
        "complete -c dcmsync -n __dcmsync_no_verb -a help -d 'show the help of a verb'",
    ]
    for each in commands:
        lines.append(f"complete -c dcmsync -n __dcmsync_no_verb -a {each.name} -d {_quoted_fish(each.summary)}")
        lines.append(f"complete -c dcmsync -n '__dcmsync_verb help' -a {each.name} -d {_quoted_fish(each.summary)}")
    for each in commands:
        lines += ["", *_fish_verb(each)]
    return "\n".join(lines) + "\n"


def _bash_case(command: Command) -> str:
    rows = (*optionals(command), HELP)
    flags = " ".join(flag for row in rows for flag in row.flags)
    valued = [row for row in rows if not is_switch(row)]
    values = " ".join(flag for row in valued for flag in row.flags)
    places = " ".join(row.completion or "none" for row in positionals(command))
    befores = "\n".join(f"                {'|'.join(row.flags)}) kind='{_bash_kind(row)}' ;;" for row in valued)
    return f"""\
        {command.name})
            options='{flags}'
            values=' {values} '
            places='{places}'
            case $before in
{befores}
            esac ;;"""


def _bash_kind(row: Option) -> str:
    return f"words:{' '.join(row.choices)}" if row.choices else row.completion or "none"


def _zsh_function(command: Command) -> str:
    lines = [f"    {_quoted(spec)}" for row in (*optionals(command), HELP) for spec in _zsh_option(row)]
    for place, row in enumerate(positionals(command), 1):
        where = "*" if row.nargs in ("*", "+") else f"{place}:" if row.nargs == "?" else str(place)
        lines.append(f"    {_quoted(f'{where}:{_zsh_plain(row.metavar or row.flags[0])}:{_zsh_action(row)}')}")
    return f"_dcmsync_{command.name}() {{\n    _arguments -s -S : \\\n    " + " \\\n    ".join(lines) + "\n}"


def _zsh_option(row: Option) -> Iterable[str]:
    words = "".join(f"\\{letter}" if letter in "[]:" else letter for letter in row.help)
    others = "" if row.repeat else f"({' '.join(row.flags)})"
    for flag in row.flags:
        star = "*" if row.repeat else others
        if is_switch(row):
            yield f"{star}{flag}[{words}]"
        else:
            sign = "=" if flag.startswith("--") else "+"
            yield f"{star}{flag}{sign}[{words}]:{_zsh_plain(row.metavar or '')}:{_zsh_action(row)}"


def _zsh_action(row: Option) -> str:
    if row.choices:
        return f"({' '.join(row.choices)})"
    if row.completion in ("file", "directory"):
        return "_files" if row.completion == "file" else "_files -/"
    return f"_dcmsync_{row.completion}s" if row.completion else " "


def _zsh_plain(text: str) -> str:
    return text.replace(":", "\\:")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _quoted_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_verb(command: Command) -> Iterable[str]:
    start = f"complete -c dcmsync -n '__dcmsync_verb {command.name}'"
    kinds = {"file": "-F", "directory": "-xa '(__fish_complete_directories (commandline -ct))'",
             "endpoint": "-xa '(__dcmsync_endpoints)'", "keyword": f"-xa '{KEYWORDS.replace(' ', '= ')}='"}
    for row in (*optionals(command), HELP):
        flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in row.flags)
        value = ""
        if row.choices:
            value = f" -xa '{' '.join(row.choices)}'"
        elif not is_switch(row):
            value = f" -r {kinds[row.completion]}" if row.completion else " -x"
        yield f"{start} {flags}{value} -d {_quoted_fish(row.help)}"
    for row in positionals(command):
        if row.completion:
            yield f"{start} {kinds[row.completion].replace('-xa', '-a')}"
