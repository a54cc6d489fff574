package configs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxDepth bounds the parts of a dotted key and the nesting of values: the
// schema has three levels, and work grows with the square of the depth.
const maxDepth = 16

// bom is what some editors put before UTF-8.
const bom = "\xef\xbb\xbf"

// maxSyntaxFaults is after how many lines that are no TOML the reading ends.
const maxSyntaxFaults = 20

type kind int

const (
	tableKind kind = iota
	listKind
	stringKind
	integerKind
	boolKind
	otherKind // floats and times: no key takes one
)

// kindNames is what each kind is called in a fault.
var kindNames = [...]string{"a table", "a list", "a string", "a whole number", "true or false", "a fraction or a time"}

// node is one value of the document with its place.
type node struct {
	line int
	kind kind
	text string // of a string: its value; of another scalar: as written

	keys    []string // of a table, in the order of the file
	values  map[string]*node
	list    []*node
	headed  bool // the table had its own [header]
	closed  bool // an inline table or array: nothing may be added later
	byTable bool // the list is made of [[headers]]
}

// child returns the value of key, and makes it with make if there is none.
func (n *node) child(key string, make func() *node) (c *node, isNew bool) {
	if c := n.values[key]; c != nil {
		return c, false
	}
	c = make()
	n.put(key, c)
	return c, true
}

func (n *node) put(key string, c *node) {
	if n.values == nil {
		n.values = map[string]*node{}
	}
	n.keys = append(n.keys, key)
	n.values[key] = c
}

// document turns TOML into a tree in which everything knows its line. It goes
// on after a line that is no TOML: a second mistake is told at once too.
type document struct {
	data   []byte
	starts []int // offset of each line
	parser unstable.Parser
	root   *node
	table  *node // where key = value goes; nil below a header that made no sense
	fault  func(line int, text string)
}

// parseDocument never fails: what it cannot read it reports to fault. whole is
// false if there is something it could not read.
func parseDocument(data []byte, fault func(line int, text string)) (root *node, whole bool) {
	data = bytes.TrimPrefix(data, []byte(bom))
	whole = true
	d := &document{data: data, root: &node{line: 1}}
	d.fault = func(line int, text string) { whole = false; fault(line, text) }
	d.table = d.root
	d.starts = []int{0}
	for i, c := range data {
		if c == '\n' {
			d.starts = append(d.starts, i+1)
		}
	}
	if bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data) {
		d.fault(d.invalidLine(), "the file is not UTF-8 text; save it as UTF-8")
		return d.root, false
	}
	d.read()
	return d.root, whole
}

func (d *document) read() {
	for from, faults := 0, 0; from < len(d.data); faults++ {
		d.parser.Reset(d.data[from:])
		for d.parser.NextExpression() {
			d.add(d.parser.Expression())
		}
		var err *unstable.ParserError
		if !errors.As(d.parser.Error(), &err) {
			return
		}
		line := d.lineOf(err.Highlight)
		text := d.lineText(line)
		d.fault(line, syntaxText(text, err.Message))
		// A line that is wrong by itself can be left out. One that is wrong
		// only where it stands is the end of something unclosed above, and a
		// lost header would put the keys below it into the wrong table.
		local := line < len(d.starts) && !isTOML(text) && !strings.HasPrefix(strings.TrimSpace(text), "[") &&
			!strings.Contains(text, `"""`) && !strings.Contains(text, "'''")
		if !local || faults == maxSyntaxFaults {
			if line < len(d.starts) {
				d.fault(line, "the lines below were not checked; correct this first")
			}
			return
		}
		from = d.starts[line]
	}
}

// add puts one line of the file into the tree.
func (d *document) add(e *unstable.Node) {
	key := e.Key()
	var parts []string
	line := 0
	for key.Next() {
		part := key.Node()
		if line == 0 {
			line = d.lineOf(d.parser.Raw(part.Raw))
		}
		parts = append(parts, string(part.Data))
	}
	if len(parts) > maxDepth {
		d.fault(line, "a key of this many parts does not exist; take it out")
		return
	}
	switch e.Kind {
	case unstable.KeyValue:
		if d.table != nil {
			d.set(d.table, parts, line, e.Value())
		}
	case unstable.Table:
		d.table = d.header(parts, line, false)
	case unstable.ArrayTable:
		d.table = d.header(parts, line, true)
	}
}

// header finds or makes the table of a [header] or [[header]].
func (d *document) header(parts []string, line int, list bool) *node {
	at := d.root
	for _, part := range parts[:len(parts)-1] {
		if at = d.descend(at, part, line); at == nil {
			return nil
		}
	}
	last := parts[len(parts)-1]
	name := strings.Join(parts, ".")
	if list {
		l, _ := at.child(last, func() *node { return &node{line: line, kind: listKind, byTable: true} })
		if !l.byTable {
			d.fault(line, fmt.Sprintf("[[%s]] has another form in line %d; use one form", name, l.line))
			return nil
		}
		t := &node{line: line, headed: true}
		l.list = append(l.list, t)
		return t
	}
	t, isNew := at.child(last, func() *node { return &node{line: line} })
	switch {
	case t.kind != tableKind || t.closed:
		d.fault(line, fmt.Sprintf("[%s] has another form in line %d; use one form", name, t.line))
		return nil
	case t.headed:
		// Its keys are checked all the same, as if there were one header.
		d.fault(line, fmt.Sprintf("[%s] is already there in line %d; put its keys together", name, t.line))
	case !isNew:
		t.line = line
	}
	t.headed = true
	return t
}

// descend goes from a table into its key part, which must be a table, or a
// list of tables, of which it is the last one.
func (d *document) descend(at *node, part string, line int) *node {
	next, _ := at.child(part, func() *node { return &node{line: line} })
	if next.byTable {
		next = next.list[len(next.list)-1]
	}
	if next.kind != tableKind || next.closed {
		d.fault(line, fmt.Sprintf("%s is not a table in line %d; use one form", quoteKey(part), next.line))
		return nil
	}
	return next
}

// set puts a value under a dotted key.
func (d *document) set(at *node, parts []string, line int, v *unstable.Node) {
	for _, part := range parts[:len(parts)-1] {
		if at = d.descend(at, part, line); at == nil {
			return
		}
	}
	last := parts[len(parts)-1]
	if old := at.values[last]; old != nil {
		d.fault(line, fmt.Sprintf("%s is already set in line %d; keep one of them", quoteKey(last), old.line))
		return
	}
	at.put(last, d.value(v, line, 0))
}

func (d *document) value(v *unstable.Node, line, depth int) *node {
	n := &node{line: line, text: string(v.Data)}
	switch v.Kind {
	case unstable.String:
		n.kind = stringKind
	case unstable.Integer:
		n.kind = integerKind
	case unstable.Bool:
		n.kind = boolKind
	case unstable.Array, unstable.InlineTable:
		n.closed = true
		if v.Kind == unstable.Array {
			n.kind = listKind
		}
		if depth >= maxDepth {
			d.fault(line, "no value has this many brackets inside one another; take it out")
			return n
		}
		d.inside(n, v, depth+1)
	default:
		n.kind = otherKind
	}
	return n
}

// inside fills an array or inline table.
func (d *document) inside(n *node, v *unstable.Node, depth int) {
	for it := v.Children(); it.Next(); {
		c := it.Node()
		if v.Kind == unstable.Array {
			n.list = append(n.list, d.value(c, n.line, depth))
			continue
		}
		var parts []string
		line := n.line
		for key := c.Key(); key.Next(); {
			line = d.lineOf(d.parser.Raw(key.Node().Raw))
			parts = append(parts, string(key.Node().Data))
		}
		if len(parts) > maxDepth {
			d.fault(line, "a key of this many parts does not exist; take it out")
			continue
		}
		d.set(n, parts, line, c.Value())
	}
}

// secondOpinion lets the library read a file that seems to be right. The tree
// is built by rules of our own; whatever slips through them is still refused.
func secondOpinion(data []byte, fault func(line int, text string)) {
	var all map[string]any
	var err *toml.DecodeError
	switch e := toml.Unmarshal(bytes.TrimPrefix(data, []byte(bom)), &all); {
	case errors.As(e, &err):
		line, _ := err.Position()
		fault(line, strings.TrimPrefix(err.Error(), "toml: ")+"; correct this line")
	case e != nil:
		fault(0, e.Error()+"; correct the file")
	}
}
