package configs

import (
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// source is where a Config comes from: it gives a fault its place.
type source struct {
	file string
	// lines has the line of every key and table of the file by its path, as in
	// "bridge[0].route[1].topic".
	lines map[string]int
	// faulty are the paths that have a fault of their own already: what stands
	// there is a default, and nothing more is to be said about it.
	faulty map[string]bool
	// partial is true if lines of the file could not be read: a key that seems
	// to be missing may be there.
	partial bool
}

// written reports whether the file has the value at path.
func (s *source) written(path string) bool { return s.lines[path] > 0 && !s.faulty[path] }

// decoder puts the tree of a document into a Config. It goes on after a fault.
type decoder struct {
	*source
	outside outside
	faults  Faults
	remarks Faults // the warnings
	secret  bool   // a secret stands in the file itself
}

func (d *decoder) fault(path string, line int, text string) {
	d.faulty[path] = true
	d.faults = append(d.faults, Fault{File: d.file, Line: line, Key: keyOf(path), Text: text})
}

func (d *decoder) warn(path string, line int, text string) {
	d.remarks = append(d.remarks, Fault{File: d.file, Line: line, Key: keyOf(path), Text: text})
}

// fields returns the fields of a struct that are keys of the file.
func fields(t reflect.Type) []reflect.StructField {
	var list []reflect.StructField
	for f := range t.Fields() {
		if f.Tag.Get("toml") != "" {
			list = append(list, f)
		}
	}
	return list
}

// table decodes n into the struct v.
func (d *decoder) table(n *node, v reflect.Value, path string) {
	known := map[string]reflect.StructField{}
	for _, f := range fields(v.Type()) {
		known[f.Tag.Get("toml")] = f
	}
	for _, key := range n.keys {
		child, name := n.values[key], key
		f, ok := known[key]
		if !ok {
			meant, text := meantKey(v.Type(), key)
			d.fault(join(path, quoteKey(key)), child.line, text)
			// What is below a misspelt key is still checked, as what it was
			// meant to be, unless that is there as well.
			if f, ok = known[meant]; !ok || n.values[meant] != nil {
				continue
			}
			name = meant
		}
		d.value(child, v.FieldByIndex(f.Index), f, join(path, name))
	}
	d.secretFiles(v, path)
}

// value decodes n into one field.
func (d *decoder) value(n *node, v reflect.Value, f reflect.StructField, path string) {
	d.lines[path] = n.line
	switch {
	case v.Type() == reflect.TypeFor[[]string]():
		d.words(n, v, path)
	case v.Kind() == reflect.Slice:
		d.list(n, v, path)
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[Secret]():
		if n.byTable {
			d.fault(path, n.line, fmt.Sprintf("there is only one; write [%s] instead of [[%[1]s]]", keyOf(path)))
			n = n.list[0]
		}
		if n.kind != tableKind {
			d.wrongKind(n, path, fmt.Sprintf("a table; begin it with [%s] in a line of its own", keyOf(path)))
			return
		}
		d.table(n, v, path)
	default:
		d.scalar(n, v, f, path)
	}
}

// words decodes a list of strings.
func (d *decoder) words(n *node, v reflect.Value, path string) {
	const wanted = `a list of strings; write it as ["a", "b"]`
	if n.kind != listKind {
		d.wrongKind(n, path, wanted)
		return
	}
	var words []string
	for i, element := range n.list {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = element.line
		if element.kind != stringKind {
			d.wrongKind(element, path, wanted)
			return
		}
		words = append(words, element.text)
	}
	v.Set(reflect.ValueOf(words))
}

// list decodes [[name]] tables. An element starts from its defaults.
func (d *decoder) list(n *node, v reflect.Value, path string) {
	elements := n.list
	if n.kind == tableKind {
		d.fault(path, n.line, fmt.Sprintf("there may be several; write [[%s]] instead of [%[1]s]", keyOf(path)))
		elements = []*node{n}
	} else if n.kind != listKind {
		d.wrongKind(n, path, fmt.Sprintf("a list of tables; begin each with [[%s]] in a line of its own", keyOf(path)))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(elements), len(elements)))
	for i, element := range elements {
		at, path := v.Index(i), fmt.Sprintf("%s[%d]", path, i)
		d.lines[path] = element.line
		if e, ok := at.Addr().Interface().(interface{ setDefaults() }); ok {
			e.setDefaults()
		}
		if element.kind != tableKind {
			d.wrongKind(element, path, fmt.Sprintf("a table; begin each with [[%s]] in a line of its own", keyOf(path)))
			continue
		}
		d.table(element, at, path)
	}
}

// scalar decodes n into a field that is no table.
func (d *decoder) scalar(n *node, v reflect.Value, f reflect.StructField, path string) {
	switch v.Interface().(type) {
	case Size:
		size, err := Size(0), errSize
		switch n.kind {
		case stringKind:
			size, err = ParseSize(n.text)
		case integerKind:
			size, err = integerSize(n.text)
		}
		if err != nil {
			d.wrongKind(n, path, `a size; write bytes as a whole number, or a string like "512MB" or "1GiB"`)
			return
		}
		v.SetInt(int64(size))
	case time.Duration:
		length, err := time.ParseDuration(n.text)
		or := ""
		if word := f.Tag.Get("word"); word != "" {
			if or = fmt.Sprintf(", or %q", word); n.text == word {
				length, err = Adaptive, nil
			}
		}
		if n.kind != stringKind || err != nil {
			d.wrongKind(n, path, `a length of time; write a string like "500ms", "30s" or "5m"`+or)
			return
		}
		v.SetInt(int64(length))
	case Secret:
		if n.kind != stringKind {
			d.wrongKind(n, path, "a string; put it in quotes")
			return
		}
		text := d.environment(n, f, path)
		d.secret = d.secret || (text != "" && text == n.text)
		v.Set(reflect.ValueOf(NewSecret(text)))
	case string:
		if n.kind != stringKind {
			d.wrongKind(n, path, "a string; put it in quotes")
			return
		}
		text := d.environment(n, f, path)
		if f.Tag.Get("path") != "" && text != "" && !filepath.IsAbs(text) {
			text = filepath.Join(filepath.Dir(d.file), text)
		}
		v.SetString(text)
	case bool:
		if n.kind != boolKind {
			d.wrongKind(n, path, "true or false; write one of them without quotes")
			return
		}
		v.SetBool(n.text == "true")
	case int:
		number, err := strconv.ParseInt(strings.ReplaceAll(n.text, "_", ""), 0, strconv.IntSize)
		if n.kind != integerKind || err != nil {
			d.wrongKind(n, path, "a whole number; write digits without quotes")
			return
		}
		v.SetInt(number)
	}
}

// integerSize reads a size that TOML wrote as a number: it may have
// underscores or be hexadecimal.
func integerSize(text string) (Size, error) {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64)
	return Size(n), err
}

// wrongKind reports that n is not what is wanted. The value itself is not
// shown: whoever writes a number for a password has put it there.
func (d *decoder) wrongKind(n *node, path, wanted string) {
	is := kindNames[n.kind]
	switch {
	case n.kind == stringKind && strings.HasPrefix(wanted, "a "):
		is = "this string"
	case n.kind == integerKind && strings.HasPrefix(wanted, "a whole"):
		d.fault(path, n.line, "the number is out of range; write a smaller one")
		return
	case n.kind == otherKind:
		is = "this value"
	}
	d.fault(path, n.line, fmt.Sprintf("%s is not %s", is, wanted))
}

// join puts a key behind the path of its table.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

var elementNumber = regexp.MustCompile(`\[[0-9]+\]`)

// keyOf is a path without the numbers of its elements: what the user wrote.
func keyOf(path string) string { return elementNumber.ReplaceAllString(path, "") }
