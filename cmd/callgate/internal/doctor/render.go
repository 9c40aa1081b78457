package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text writes a table: outcome, item, what was found and what it costs.
func Text(out io.Writer, items []Item) error {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	for _, item := range items {
		// A Buffer takes everything.
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", item.State, item.Title, item.note())
	}
	_ = w.Flush()
	for line := range strings.Lines(table.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// note is a single line: what others say comes in as it likes.
func (i Item) note() string {
	var parts []string
	if i.Required && i.State == Missing {
		parts = append(parts, "REQUIRED")
	}
	if i.Found != "" {
		parts = append(parts, i.Found)
	}
	if i.Cost != "" {
		parts = append(parts, "costs: "+i.Cost)
	}
	return strings.Join(strings.Fields(strings.Join(parts, "; ")), " ")
}

// JSON writes the items as a list of objects.
func JSON(out io.Writer, items []Item) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(items)
}
