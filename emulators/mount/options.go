package mount

import (
	"errors"
	"strings"
)

// parameter is one of a filesystem's: a key, or KEY=VALUE.
type parameter struct {
	key, value string
	valued     bool
}

func (p parameter) String() string {
	if !p.valued {
		return p.key
	}
	return p.key + "=" + p.value
}

var (
	errQuote = errors.New("quotation mark without its other")
	errComma = errors.New("comma within a value")
	errKey   = errors.New("an option's name has characters other than letters, digits and -._+: in it")
)

// maxParameters bounds a list.
const maxParameters = 256

var errMany = errors.New("more than 256 options")

// parseOptions takes the options of mount(2) apart: KEY or KEY=VALUE with
// commas between, of which those inside of double quotes are none. The quotes
// are not part of the value. What a filesystem that splits at every comma
// would read otherwise is refused: a value with a comma or a quotation mark.
func parseOptions(text string) ([]parameter, error) {
	var list []parameter
	for text != "" {
		end, err := endOfOption(text)
		if err != nil {
			return nil, err
		}
		item := text[:end]
		text = strings.TrimPrefix(text[end:], ",")
		if item == "" {
			continue // as generic_parse_monolithic of fs/fs_context.c does
		}
		p, err := parseOption(item)
		if err != nil {
			return nil, err
		}
		if list = append(list, p); len(list) > maxParameters {
			return nil, errMany
		}
	}
	return list, nil
}

// endOfOption is the index of the first comma outside of quotes, or the length.
func endOfOption(text string) (int, error) {
	quoted := false
	for i := range len(text) {
		switch text[i] {
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				return i, nil
			}
		}
	}
	if quoted {
		return 0, errQuote
	}
	return len(text), nil
}

func parseOption(item string) (parameter, error) {
	key, value, valued := strings.Cut(item, "=")
	if inner, ok := strings.CutPrefix(value, `"`); ok {
		value, ok = strings.CutSuffix(inner, `"`)
		if !ok {
			return parameter{}, errQuote
		}
	}
	switch {
	case !isKey(key):
		return parameter{}, errKey
	case strings.ContainsRune(value, '"'):
		return parameter{}, errQuote
	case strings.ContainsRune(value, ','):
		return parameter{}, errComma
	}
	return parameter{key: key, value: value, valued: valued}, nil
}

func isKey(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._+:", rune(c)) {
			return false
		}
	}
	return s != ""
}
