package holdfast_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logged are the events in a file: the texts that are given to a logger, above
// level debug.
func logged(t *testing.T, name string) (events []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		at := slices.Index([]string{"Info", "Warn", "Error", "", "Log"}, method.Sel.Name)
		switch {
		case at < 0:
			return true
		case at < 4:
			at = 0
		default:
			at = 2
		}
		if len(call.Args) <= at {
			return true
		}
		if text, ok := call.Args[at].(*ast.BasicLit); ok && text.Kind == token.STRING {
			s, err := strconv.Unquote(text.Value)
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, s)
		}
		return true
	})
	return events
}

// TestEveryEventIsExplained holds docs/events.md to what is logged: people search
// for these texts, and alert on them.
func TestEveryEventIsExplained(t *testing.T) {
	doc, err := os.ReadFile("docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{} // true: it is logged
	for line := range strings.Lines(string(doc)) {
		if cells := strings.Split(line, " | "); len(cells) == 3 && strings.HasPrefix(cells[1], "`") {
			explained[strings.Trim(cells[1], "`")] = strings.HasSuffix(cells[1], " ...`")
		}
	}
	count := 0
	for _, dir := range []string{"bridge", "edge", "modem", "storage", "cmd/holdfast"} {
		err := fs.WalkDir(os.DirFS("."), dir, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && slices.Contains([]string{"modem/sim", "storage/storagetest", "cmd/holdfast/e2e"}, name):
				return fs.SkipDir
			case d.IsDir(), path.Ext(name) != ".go", strings.HasSuffix(name, "_test.go"):
				return nil
			}
			for _, event := range logged(t, name) {
				count++
				if _, ok := explained[event]; !ok {
					t.Errorf("%s: %q is not in docs/events.md", name, event)
				}
				explained[event] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for event, logged := range explained {
		if !logged {
			t.Errorf("docs/events.md: nothing logs %q", event)
		}
	}
	if count < 100 {
		t.Errorf("only %d events were found", count)
	}
}
