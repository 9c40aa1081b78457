package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxErrors  = 20  // errors listed for one file
	maxMessage = 400 // runes of one message: a file may hold a value of 1 MiB
	maxQuote   = 80  // bytes of a value that a message repeats
)

// Error is one thing that is wrong with a configuration file.
type Error struct {
	File string
	// Line and Column count from 1, the column in characters; 0 where the
	// place is not known.
	Line, Column int
	// Field is the full path of the field, "profiles.default.mknod.allow[2]";
	// empty for the file as a whole and for text that is not YAML.
	Field string
	// Message says what is wrong and what was expected.
	Message string
	// Err is the error that a policy's own type gave, or nil.
	Err error
}

// Error is one line: FILE:LINE:COLUMN: FIELD: MESSAGE, without the parts that
// are not known.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(oneLine(e.File))
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ":%d", e.Column)
		}
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(oneLine(e.Field))
		b.WriteString(": ")
	}
	b.WriteString(oneLine(e.Message))
	return b.String()
}

// Unwrap gives the error of a policy's own type, if it was one.
func (e *Error) Unwrap() error { return e.Err }

// Errors are the things wrong with a file, in file order. It is what [Load],
// [Parse] and a policy's Decode return for a file that could be read; take it
// out with errors.As.
type Errors struct {
	List []*Error // never empty, at most 20
	More int      // how many there were beyond List
}

// Error has one line for each error, and a last one where some were left out.
func (e *Errors) Error() string {
	lines := make([]string, 0, len(e.List)+1)
	for _, one := range e.List {
		lines = append(lines, one.Error())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("%s: %d more errors not shown", oneLine(e.List[0].File), e.More))
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single errors to errors.Is and errors.As.
func (e *Errors) Unwrap() []error {
	errs := make([]error, len(e.List))
	for i, one := range e.List {
		errs[i] = one
	}
	return errs
}

// report collects the errors of one file.
type report struct {
	file string
	list []*Error
	more int
}

func (r *report) add(n *node, field, format string, args ...any) *Error {
	return r.push(&Error{File: r.file, Line: n.line, Column: n.column, Field: field, Message: fmt.Sprintf(format, args...)})
}

func (r *report) push(e *Error) *Error {
	r.list = append(r.list, e)
	return e
}

// err returns nil or an *Errors.
func (r *report) err() error {
	if len(r.list) == 0 {
		return nil
	}
	slices.SortStableFunc(r.list, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	keep := min(len(r.list), maxErrors)
	return &Errors{List: slices.Clone(r.list[:keep]), More: r.more + len(r.list) - keep}
}

// oneLine keeps a terminal and a log safe from what the file holds.
func oneLine(s string) string {
	var b strings.Builder
	count := 0
	for _, c := range s {
		if count++; count > maxMessage {
			b.WriteString("…")
			break
		}
		switch {
		case c == '\n' || c == '\r' || c == '\t':
			b.WriteByte(' ')
		case c == utf8.RuneError || !unicode.IsPrint(c):
			fmt.Fprintf(&b, "\\u%04x", c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// quote is %q, cut for values that are long.
func quote(s string) string {
	if len(s) <= maxQuote {
		return fmt.Sprintf("%q", s)
	}
	cut := maxQuote
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q…", s[:cut])
}
