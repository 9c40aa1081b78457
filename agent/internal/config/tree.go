package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds how deep a file nests: every walk below is recursive.
const maxDepth = 64

type nodeKind int

const (
	null nodeKind = iota
	boolean
	integer
	float
	str
	sequence
	mapping
)

// node is one YAML value: what is left of the library's tree once everything
// that a configuration has no use for (anchors, aliases, merge keys, tags) is
// refused. It is never changed after it is built.
type node struct {
	kind         nodeKind
	text         string  // of a scalar, without its quotes
	keys         []*node // of a mapping: scalars, one for each of items
	items        []*node // of a mapping or a sequence
	line, column int     // from 1
}

// child returns the value of a key of a mapping, or nil.
func (n *node) child(key string) *node {
	for i, k := range n.keys {
		if k.text == key {
			return n.items[i]
		}
	}
	return nil
}

// parseTree returns the one document in data, nil if there is none in it or if
// something was reported.
func parseTree(data []byte, r *report) *node {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !checkText(data, r) {
		return nil
	}
	first, second, err := documents(data)
	switch {
	case err != nil:
		r.push(syntaxError(r.file, data, err))
		return nil
	case second != nil:
		r.add(at(second), "", "a second document begins, want one document in a file")
		return nil
	case first == nil || len(first.Content) == 0:
		return nil
	}
	t := treeBuilder{r: r}
	root := t.build(first.Content[0], at(first), 0)
	if len(r.list) > 0 {
		return nil
	}
	return root
}

// documents returns the first document and, where there is one, the second;
// the library's own Unmarshal does not look beyond the first. It turns a panic
// in the library into an error: the agent re-reads its file on SIGHUP with
// containers waiting, and keeps the old configuration on error.
func documents(data []byte) (first, second *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the YAML parser stopped: %v", p)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var docs [2]yaml.Node
	if err := decoder.Decode(&docs[0]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	switch err := decoder.Decode(&docs[1]); {
	case errors.Is(err, io.EOF):
		return &docs[0], nil, nil
	case err != nil:
		return nil, nil, err
	}
	return &docs[0], &docs[1], nil
}

// checkText refuses what YAML does not allow in a file: the library says so
// too, without a line.
func checkText(data []byte, r *report) bool {
	line, column := 1, 0
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		column++
		var wrong string
		switch {
		case c == utf8.RuneError && size == 1:
			wrong = fmt.Sprintf("byte 0x%02x is not UTF-8", data[i])
		case c == '\r' && (i+1 == len(data) || data[i+1] != '\n'),
			c < ' ' && c != '\t' && c != '\n' && c != '\r',
			c >= 0x7f && c < 0xa0 && c != 0x85,
			c == 0xfeff, c == 0xfffe, c == 0xffff:
			wrong = fmt.Sprintf("control character %U", c)
		}
		if wrong != "" {
			r.push(&Error{File: r.file, Line: line, Column: column, Message: "not valid YAML: " + wrong})
			return false
		}
		if c == '\n' {
			line, column = line+1, 0
		}
		i += size
	}
	return true
}

func at(n *yaml.Node) *node {
	return &node{line: n.Line, column: n.Column}
}
