package config

import "go.yaml.in/yaml/v3"

// treeBuilder makes nodes of the library's tree and refuses, by name, what a
// configuration has no use for. Aliases are refused rather than bounded: no
// expansion, no "billion laughs".
type treeBuilder struct {
	r *report
}

// build never returns nil; what it refuses is reported and becomes null. The
// place is used where there is no value to point at (nothing after a colon).
func (t *treeBuilder) build(n *yaml.Node, place *node, depth int) *node {
	out := at(n)
	if refused := refusal(n); refused != "" {
		t.r.add(out, "", "%s are not supported in a configuration, write the value out", refused)
		return out
	}
	if depth > maxDepth {
		t.r.add(out, "", "nested deeper than %d levels", maxDepth)
		return out
	}
	switch n.Kind {
	case yaml.SequenceNode:
		out.kind = sequence
		for _, item := range n.Content {
			out.items = append(out.items, t.build(item, at(item), depth+1))
		}
	case yaml.MappingNode:
		out.kind = mapping
		for i := 0; i+1 < len(n.Content); i += 2 {
			t.pair(out, n.Content[i], n.Content[i+1], depth)
		}
	default:
		out.kind, out.text = scalarKind(n), n.Value
		if out.kind == null && n.Value == "" {
			out.line, out.column = place.line, place.column
		}
	}
	return out
}

func (t *treeBuilder) pair(out *node, name, value *yaml.Node, depth int) {
	key := t.build(name, out, depth+1)
	if key.kind == sequence || key.kind == mapping {
		t.r.add(key, "", "the key of a mapping is a list or a mapping, want a name")
		return
	}
	out.keys = append(out.keys, key)
	out.items = append(out.items, t.build(value, key, depth+1))
}

func scalarKind(n *yaml.Node) nodeKind {
	switch n.ShortTag() {
	case "!!null":
		return null
	case "!!bool":
		return boolean
	case "!!int":
		return integer
	case "!!float":
		return float
	default: // dates too
		return str
	}
}

// refusal names what stands in a file that a configuration has no use for.
func refusal(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode:
		return "aliases (*name)"
	case n.Anchor != "":
		return "anchors (&name)"
	case n.Style&yaml.TaggedStyle != 0:
		return "tags (!name)"
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!merge":
		return "merge keys (<<)"
	}
	return ""
}
