"""What each shell needs to ask: a few lines that give the words there are to ``anvil completion --words``."""

from __future__ import annotations

BASH = r"""# Completion of anvil for bash. For this session:  eval "$(anvil completion bash)"
# For every one:  anvil completion bash >~/.local/share/bash-completion/completions/anvil
_anvil() {
    local line kind='' given=() offered=() begun=${COMP_WORDS[COMP_CWORD]}
    # bash breaks words at ":" and "=", too: what has no blank between is one
    local rest=${COMP_LINE:0:COMP_POINT} index word trimmed
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        trimmed=${rest#"${rest%%[![:space:]]*}"}
        ((index == COMP_CWORD)) && word=$trimmed begun=$trimmed
        if ((index > 0)) && [[ $rest == "$trimmed" && -n $word ]]; then
            given[-1]+=$word
        else
            given+=("$word")
        fi
        rest=${trimmed#"$word"}
    done
    [[ $begun == [:=] ]] && begun=''
    while IFS= read -r line; do
        case $line in
            :*) kind=${line#:} ;;
            *) offered+=("${line%%$'\t'*}") ;;
        esac
    done < <(printf '%s\n' "${given[@]:1}" | "${COMP_WORDS[0]}" completion --words 2>/dev/null)
    COMPREPLY=()
    case $kind in
        dirs) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$begun") ;;
        files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$begun") ;;
    esac
    # bash puts an answer in the place of what is behind the last break
    for line in "${offered[@]}"; do
        COMPREPLY+=("${line#"${given[-1]%"$begun"}"}")
    done
}
complete -F _anvil anvil
"""

ZSH = r"""#compdef anvil
# Completion of anvil for zsh. For this session:  eval "$(anvil completion zsh)"
# For every one: write this to a file _anvil in a folder of $fpath.
_anvil() {
    local line kind='' tab=$'\t'
    local -a answers described
    answers=("${(@f)$(print -rl -- "${(@)words[2,CURRENT]}" | "${words[1]}" completion --words 2>/dev/null)}")
    for line in "${answers[@]}"; do
        case $line in
            '') ;;
            :*) kind=${line#:} ;;
            *) described+=("${${line%%$tab*}//:/\\:}:${line#*$tab}") ;;
        esac
    done
    [[ ${words[CURRENT]} == --*=* && -n $kind ]] && compset -P '*='
    (( ${#described} )) && _describe -t anvil anvil described
    case $kind in
        dirs) _files -/ ;;
        files) _files ;;
    esac
}
if [[ ${funcstack[1]} == _anvil ]]; then _anvil "$@"; else compdef _anvil anvil; fi
"""

FISH = r"""# Completion of anvil for fish. For this session:  anvil completion fish | source
# For every one:  anvil completion fish >~/.config/fish/completions/anvil.fish
function __anvil_complete
    set -l given (commandline -opc)
    set -l program $given[1]
    set -e given[1]
    set -l token (commandline -ct)
    test (count $token) -eq 0; and set token ''
    set -l prefix (string match -r -- '^--[^=]*=' $token)
    set -l begun (string replace -r -- '^--[^=]*=' '' $token)
    for line in (printf '%s\n' $given $token | $program completion --words 2>/dev/null)
        switch $line
            case ':dirs'
                printf "$prefix%s\n" (__fish_complete_directories $begun '')
            case ':files'
                printf "$prefix%s\n" (__fish_complete_path $begun '')
            case '*'
                printf '%s\n' $line
        end
    end
end
complete -c anvil -f -a '(__anvil_complete)'
"""

OF_SHELL = {"bash": BASH, "fish": FISH, "zsh": ZSH}
