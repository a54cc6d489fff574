package configs

import (
	"fmt"
	"regexp"
	"strings"

	"holdfast/edge/password"
)

// maxUserName is the longest name of a user, in bytes.
const maxUserName = 1024

// placeholder is what looks like %u or %c.
var placeholder = regexp.MustCompile(`%[A-Za-z]`)

func (k *checker) access() {
	a := &k.c.Access
	certificates := false
	for _, l := range k.c.Listeners {
		certificates = certificates || l.ClientCA != ""
	}
	if a.Anonymous == AnonymousNever && len(a.Users) == 0 && !certificates {
		k.warn("access.anonymous", "without users nobody at all can connect; add them with holdfast passwd NAME, or write %q or %q",
			AnonymousLoopback, AnonymousAlways)
	}
	if a.Anonymous == AnonymousAlways && len(a.Users) > 0 {
		k.warn("access.anonymous", "whoever leaves the user name out may do everything, from anywhere, whatever the users may; write %q or %q",
			AnonymousLoopback, AnonymousNever)
	}
	seen := map[string]int{}
	for i, u := range a.Users {
		path := fmt.Sprintf("access.user[%d]", i)
		at := path + ".name"
		switch line, again := seen[u.Name]; {
		case u.Name == "":
			k.missing(at, `is missing; write name = "..."`)
		case len(u.Name) > maxUserName || strings.ContainsAny(u.Name, "\x00\r\n"):
			k.fault(at, "%s cannot be a user; a name is one line of at most %d bytes", quote(u.Name), maxUserName)
		case again:
			k.fault(at, "%s is taken by %s; each user is there once", quote(u.Name), lineWords(line))
		default:
			seen[u.Name] = k.line(at)
		}
		at = path + ".password"
		if !u.Password.IsSet() {
			if !certificates {
				k.warn(at, "is empty, and no listener has client_ca: nobody can log in as this user; set one with holdfast passwd")
			}
		} else if _, err := password.Parse(u.Password.Reveal()); err != nil {
			k.fault(at, "%v; passwords stand here as hashes only, which holdfast passwd writes", err)
		}
		k.patterns(u.Publish, path+".publish")
		k.patterns(u.Subscribe, path+".subscribe")
	}
}

func (k *checker) patterns(list []string, path string) {
	for _, p := range list {
		for _, v := range placeholder.FindAllString(p, -1) {
			if v != "%u" && v != "%c" {
				k.fault(path, "%s: there is no %s; those that there are: %%u, %%c", quote(p), v)
			}
		}
		if strings.HasPrefix(p, "$share/") {
			k.fault(path, "%s: write what is behind $share/NAME/, which then may be shared under any name", quote(p))
		} else if err := filterError(p); err != nil {
			k.fault(path, "%v; correct it", err)
		}
	}
}
