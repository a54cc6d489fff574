package holdfast_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "holdfast"

// rule says what a package may import of this module: imports go downward only.
// "." is the root package; "storage/..." is storage and all below it.
type rule struct {
	pkg string
	may []string
	// tests are what its test files may import as well, if they are in the
	// package itself. Those of an external test package are free: they see
	// what any user of the package sees.
	tests []string
	// others: libraries besides the standard one.
	others bool
}

// The first that fits a package is its rule. edge, bridge, modem and storage
// never meet here: they meet in cmd/holdfast/gateway.
var rules = []rule{
	{pkg: "."},
	{pkg: "edge/packet", may: []string{"."}},
	{pkg: "edge/topic", may: []string{"."}},
	// The hash of the configuration, of holdfast passwd and of a login.
	{pkg: "edge/password", others: true},
	{pkg: "modem/at"},
	// The simulator shares no reading of AT commands with what it tests.
	{pkg: "modem/sim", may: []string{".", "edge/packet", "edge/topic"}, tests: []string{"edge"}, others: true},
	{pkg: "edge", may: []string{".", "edge/packet", "edge/topic", "edge/password"}, others: true},
	{pkg: "bridge", may: []string{".", "edge/packet", "edge/topic"}, others: true},
	{pkg: "modem", may: []string{".", "edge/packet", "edge/topic", "modem/at"}, tests: []string{"modem/sim", "edge"}, others: true},
	{pkg: "storage/...", may: []string{".", "storage/..."}, others: true},
	{pkg: "configs", may: []string{".", "edge/topic", "edge/password"}, others: true},
	{pkg: "cmd/...", may: []string{"..."}, others: true},
}

// parts may be together in one package of cmd only.
var (
	parts   = []string{"edge", "bridge", "modem", "storage"}
	meeting = "cmd/holdfast/gateway"
)

// source is one file as the rules see it.
type source struct {
	file     string // relative to the module
	pkg      string // its folder
	external bool   // package x_test
	imports  []string
}

func fits(pattern, pkg string) bool {
	if tree, ok := strings.CutSuffix(pattern, "..."); ok {
		tree = strings.TrimSuffix(tree, "/")
		return tree == "" || pkg == tree || strings.HasPrefix(pkg, tree+"/")
	}
	return pattern == pkg
}

func fitsAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return fits(p, pkg) })
}

// inModule returns the folder of an import of this module.
func inModule(imp string) (folder string, ok bool) {
	if imp == module {
		return ".", true
	}
	return strings.CutPrefix(imp, module+"/")
}

// violations tells in words what in the files is against the rules.
func violations(files []source) (list []string) {
	met := map[string][]string{}
	for _, f := range files {
		test := strings.HasSuffix(f.file, "_test.go")
		if test && f.external {
			continue
		}
		at := slices.IndexFunc(rules, func(r rule) bool { return fits(r.pkg, f.pkg) })
		if at < 0 {
			list = append(list, fmt.Sprintf("%s: package %s has no rule in deps_test.go", f.file, f.pkg))
			continue
		}
		r := rules[at]
		for _, imp := range f.imports {
			folder, own := inModule(imp)
			first, _, _ := strings.Cut(imp, "/")
			switch {
			case own && (fitsAny(r.may, folder) || test && fitsAny(r.tests, folder)):
				if !test && slices.Contains(parts, folder) && !slices.Contains(met[f.pkg], folder) {
					met[f.pkg] = append(met[f.pkg], folder)
				}
			case own:
				list = append(list, fmt.Sprintf("%s: %s must not import %s", f.file, f.pkg, folder))
			case imp == "C":
				list = append(list, fmt.Sprintf("%s: cgo would tie the binary to a C library", f.file))
			case strings.Contains(first, ".") && !r.others && !test:
				list = append(list, fmt.Sprintf("%s: %s has the standard library only, not %s", f.file, f.pkg, imp))
			}
		}
	}
	for pkg, together := range met {
		if strings.HasPrefix(pkg, "cmd/") && pkg != meeting && len(together) > 1 {
			list = append(list, fmt.Sprintf("%s: %s meet in %s only", pkg, strings.Join(together, " and "), meeting))
		}
	}
	slices.Sort(list)
	return list
}

func TestImportsGoDownward(t *testing.T) {
	var files []source
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "build"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		s := source{
			file: filepath.ToSlash(file), pkg: path.Dir(filepath.ToSlash(file)),
			external: strings.HasSuffix(f.Name.Name, "_test"),
		}
		for _, imp := range f.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		files = append(files, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 2 {
		t.Fatalf("only %d files were found", len(files))
	}
	for _, v := range violations(files) {
		t.Error(v)
	}
}

func TestImportRuleNoticesViolations(t *testing.T) {
	for _, c := range []struct {
		file, imports string
		want          string // empty: allowed
	}{
		{"message.go", "time", ""},
		{"message.go", "golang.org/x/sys/unix", "message.go: . has the standard library only, not golang.org/x/sys/unix"},
		{"message.go", "holdfast/edge/topic", "message.go: . must not import edge/topic"},
		{"edge/packet/publish.go", "holdfast encoding/binary", ""},
		{"edge/packet/publish.go", "holdfast/edge", "edge/packet/publish.go: edge/packet must not import edge"},
		{"edge/router.go", "holdfast/edge/topic", ""},
		{"edge/router.go", "holdfast/storage", "edge/router.go: edge must not import storage"},
		{"edge/router_test.go", "holdfast/storage", "edge/router_test.go: edge must not import storage"},
		{"bridge/forward.go", "holdfast/configs", "bridge/forward.go: bridge must not import configs"},
		{"bridge/client.go", "github.com/eclipse/paho.mqtt.golang", ""},
		{"modem/at/lexer.go", "holdfast", "modem/at/lexer.go: modem/at must not import ."},
		{"modem/sim/data.go", "holdfast/modem/at", "modem/sim/data.go: modem/sim must not import modem/at"},
		{"modem/sim/data_test.go", "holdfast/modem", "modem/sim/data_test.go: modem/sim must not import modem"},
		{"modem/bringup_test.go", "holdfast/modem/sim holdfast/edge", ""},
		{"modem/bringup.go", "holdfast/modem/sim", "modem/bringup.go: modem must not import modem/sim"},
		{"storage/storagetest/suite.go", "holdfast/storage", ""},
		{"storage/open.go", "holdfast/bridge", "storage/open.go: storage must not import bridge"},
		{"storage/open.go", "C", "storage/open.go: cgo would tie the binary to a C library"},
		{"util/strings.go", "strings", "util/strings.go: package util has no rule in deps_test.go"},
		{"cmd/holdfast/gateway/gateway.go", "holdfast/edge holdfast/storage", ""},
		{"cmd/holdfast/run.go", "holdfast/edge holdfast/modem/sim", ""},
		{"cmd/holdfast/run.go", "holdfast/edge holdfast/storage", "cmd/holdfast: edge and storage meet in cmd/holdfast/gateway only"},
	} {
		got := violations([]source{{file: c.file, pkg: path.Dir(c.file), imports: strings.Fields(c.imports)}})
		if strings.Join(got, "\n") != c.want {
			t.Errorf("%s imports %s: got %q, want %q", c.file, c.imports, got, c.want)
		}
	}
	external := source{file: "edge/edge_test.go", pkg: "edge", external: true, imports: []string{"holdfast/storage"}}
	if got := violations([]source{external}); got != nil {
		t.Errorf("an external test package: %q", got)
	}
}
