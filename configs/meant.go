package configs

import (
	"fmt"
	"reflect"
	"strings"
)

// maxShown is how much of a value or key of the user is repeated in a fault.
const maxShown = 60

// quote is s in quotes, shortened to what helps to find it.
func quote(s string) string {
	if len(s) > maxShown {
		return fmt.Sprintf("%q...", s[:maxShown])
	}
	return fmt.Sprintf("%q", s)
}

// otherWords are what other programs call our keys.
var otherWords = map[string]string{
	"user": "username", "pass": "password", "passwd": "password", "secret": "password",
	"clientid": "client_id", "id": "name", "host": "url", "server": "url", "broker": "url", "uri": "url",
	"address": "url", "device": "port", "serial": "port", "baudrate": "baud", "speed": "baud",
	"keep_alive": "keepalive", "filter": "topic", "pattern": "topic", "datadir": "data_dir", "path": "data_dir",
	"bind": "address", "listen": "address", "modem": "via", "interface": "via", "max_size": "max_bytes",
	"allow_anonymous": "anonymous", "pin_code": "pin",
}

// meantKey explains a key that the table t does not have. meant is the key of
// the same table that was probably meant, or empty.
func meantKey(t reflect.Type, key string) (meant, text string) {
	const none = "there is no such key"
	var here []string
	for _, f := range fields(t) {
		here = append(here, f.Tag.Get("toml"))
	}
	near, distance := nearest(key, here)
	if near != "" && distance <= 1 {
		return near, fmt.Sprintf("%s; did you mean %s?", none, near)
	}
	places := map[string][]string{}
	var all []string
	schema(reflect.TypeFor[Config](), "", func(table string, f reflect.StructField) {
		name := f.Tag.Get("toml")
		places[name] = append(places[name], table)
		all = append(all, name)
	})
	// Each of these is a sure guess at another table or a fair one at this.
	if tables := places[key]; len(tables) > 0 && len(tables) <= 3 {
		return "", fmt.Sprintf("this key belongs to %s; move it there", strings.Join(headers(tables), " or "))
	}
	if near != "" {
		return near, fmt.Sprintf("%s; did you mean %s?", none, near)
	}
	word := otherWords[strings.ReplaceAll(strings.ToLower(key), "-", "_")]
	for _, k := range here {
		if k == word {
			return k, fmt.Sprintf("%s; did you mean %s?", none, k)
		}
	}
	near, _ = nearest(key, all)
	if near == "" {
		near = word
	}
	if len(places[near]) == 1 {
		return "", fmt.Sprintf("%s; did you mean %s in %s?", none, near, headers(places[near])[0])
	}
	return "", fmt.Sprintf("%s; the keys here are %s", none, strings.Join(here, ", "))
}

// schema calls visit for every key that a file may have, with the header of
// its table: "" at the top, "[log]", "[[bridge.route]]".
func schema(t reflect.Type, table string, visit func(table string, f reflect.StructField)) {
	for _, f := range fields(t) {
		visit(table, f)
		name := join(strings.Trim(table, "[]"), f.Tag.Get("toml"))
		switch {
		case isList(f.Type):
			schema(f.Type.Elem(), "[["+name+"]]", visit)
		case f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Secret]():
			schema(f.Type, "["+name+"]", visit)
		}
	}
}

// isList reports whether t is a list of tables.
func isList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

func headers(tables []string) []string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t
		if t == "" {
			names[i] = "the top of the file"
		}
	}
	return names
}

// nearest returns the word that key was probably meant to be, or "".
func nearest(key string, words []string) (word string, distance int) {
	if len(key) > maxShown {
		return "", 0
	}
	plain := strings.ReplaceAll(strings.ToLower(key), "-", "_")
	distance = 3
	for _, w := range words {
		// Long words may have two letters wrong, short ones only one.
		if n := editDistance(plain, w); n < distance && n <= max(1, len(w)/4) {
			word, distance = w, n
		}
	}
	return word, distance
}

// editDistance counts the letters that were inserted, left out, changed or
// swapped with their neighbour between a and b.
func editDistance(a, b string) int {
	// Three rows of the usual table: two back for a swap.
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
