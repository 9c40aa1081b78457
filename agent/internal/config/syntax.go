package config

import (
	"errors"
	"fmt"
	"strings"

	precise "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxLocate is the largest file, in bytes, in which the place of a syntax error
// is looked for: goccy/go-yaml takes minutes for some files of 1 MiB.
const maxLocate = 64 << 10

// syntaxError gives a file that yaml/v3 refuses the line and column at which
// to look. Two libraries, because each lacks half: yaml/v3 is linear in the
// file's size and bounded in its depth, so it alone decides what is accepted,
// but often names the line where the enclosing block began, or none;
// goccy/go-yaml names the token, but its time grows with the square of a
// mapping's length.
func syntaxError(file string, data []byte, refused error) *Error {
	if len(data) <= maxLocate {
		if e := locate(string(data)); e != nil {
			e.File = file
			return e
		}
	}
	e := &Error{File: file}
	message := strings.TrimPrefix(refused.Error(), "yaml: ")
	if _, err := fmt.Sscanf(message, "line %d:", &e.Line); err == nil {
		_, message, _ = strings.Cut(message, ": ")
	}
	e.Message = "not valid YAML: " + message
	return e
}

// locate returns nil if it finds nothing wrong.
func locate(text string) (e *Error) {
	defer func() {
		if recover() != nil {
			e = nil // there is the other library's error
		}
	}()
	tokens := lexer.Tokenize(text)
	if e := tooDeep(tokens); e != nil {
		return e
	}
	_, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return unknownAlias(tokens)
	}
	var syntax *precise.SyntaxError
	if !errors.As(err, &syntax) || syntax.Token == nil {
		return nil
	}
	e = errorAt(syntax.Token, "not valid YAML: "+syntax.Message)
	if strings.ContainsRune(syntax.Message, '\t') {
		e.Message += " (indent with spaces, not tabs)"
	}
	return e
}

// tooDeep finds the two ways to nest by a byte or two a level. Nesting by
// indentation costs the square of its depth in spaces.
func tooDeep(tokens token.Tokens) *Error {
	flow, onLine, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			onLine, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType:
			onLine++
		}
		if flow > maxDepth || onLine > maxDepth {
			return errorAt(t, fmt.Sprintf("nested deeper than %d levels", maxDepth))
		}
	}
	return nil
}

// unknownAlias is for the one mistake that only yaml/v3 finds.
func unknownAlias(tokens token.Tokens) *Error {
	for _, t := range tokens {
		if t.Type == token.AliasType {
			return errorAt(t, "aliases (*name) are not supported in a configuration, write the value out")
		}
	}
	return nil
}

func errorAt(t *token.Token, message string) *Error {
	e := &Error{Message: message}
	if t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	return e
}
