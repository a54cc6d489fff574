package configs

import (
	"strings"
	"testing"
)

const (
	oldHash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	newHash = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"
)

func TestSetPasswordChangesNothingElse(t *testing.T) {
	for name, tc := range map[string]struct{ before, after string }{
		"an empty file": {"", "\n[[access.user]]\nname = \"pump\"\npassword = \"NEW\"\n" + allTopics},
		"no user yet": {"# mine\n[access]\nanonymous = \"never\" # so", "# mine\n[access]\nanonymous = \"never\" # so\n" +
			"\n[[access.user]]\nname = \"pump\"\npassword = \"NEW\"\n" + allTopics},
		"a password that is there": {
			"[[access.user]]\nname = \"other\"\npassword = \"OLD\"\n[[access.user]]\n  name = \"pump\"\n  password='OLD' # changed in May\n  publish = []\n[log]\nlevel = \"warn\"\n",
			"[[access.user]]\nname = \"other\"\npassword = \"OLD\"\n[[access.user]]\n  name = \"pump\"\n  password=\"NEW\" # changed in May\n  publish = []\n[log]\nlevel = \"warn\"\n"},
		"a user without a password": {
			"[[access.user]]\r\n  name = \"pump\" # mine\r\n  publish = [\"a\"]\r\n",
			"[[access.user]]\r\n  name = \"pump\" # mine\r\n  password = \"NEW\"\r\n  publish = [\"a\"]\r\n"},
		"a name in another form": {"[[access.user]]\nname = 'p\"\\'\n", ""},
	} {
		user := "pump"
		before := strings.ReplaceAll(tc.before, "OLD", oldHash)
		got, added, err := SetPassword(before, user, newHash)
		want := strings.ReplaceAll(strings.ReplaceAll(tc.after, "NEW", newHash), "OLD", oldHash)
		if name == "a name in another form" {
			got, added, err = SetPassword(before, `p"\`, newHash)
			want = before[:len(before)-1] + "\npassword = \"" + newHash + "\"\n"
		}
		if err != nil || got != want || added != !strings.Contains(before, "name = \"pump\"") && !strings.Contains(before, `'p"`) {
			t.Errorf("%s: added %v, %v\n%s\nwant\n%s", name, added, err, got, want)
			continue
		}
		c := mustLoad(t, got)
		last := c.Access.Users[len(c.Access.Users)-1]
		if last.Password.Reveal() != newHash {
			t.Errorf("%s: %+v", name, c.Access.Users)
		}
	}
}

const allTopics = "# Topic filters; %u stands for the name, %c for the client identifier.\npublish = [\"#\"]\nsubscribe = [\"#\"]\n"

func TestSetPasswordLeavesWhatItDoesNotUnderstand(t *testing.T) {
	for _, text := range []string{
		"access = { user = [{ name = \"pump\" }] }\n",
		"access = { user = [{ name = \"other\" }] }\n",
		"[[access.user]]\nname = \"pump\"\npassword = \"\"\"x\"\"\"\n",
		"[[access.user]]\nname = \"\"\"\npump\"\"\"\n",
		"[[access.user]]\nname = \"pump\"\npassword = 1\n",
		"[[access.user]]\npassword = \"x\" # password = \"y\"\nname = \"pump\"\nname = \"b\"\n",
		"[[access.user\n",
	} {
		if out, _, err := SetPassword(text, "pump", newHash); err == nil {
			t.Errorf("%s became\n%s", text, out)
		}
	}
	if _, _, err := SetPassword("", "\xff", newHash); err == nil {
		t.Error("a name that is no text was taken")
	}
}

func FuzzSetPassword(f *testing.F) {
	f.Add("[[access.user]]\nname = \"pump\"\npassword = 'x'\n", "pump")
	f.Add("access.user = [{name='pump'}]", "pump")
	f.Add("[[access.user]]\nname = \"a\"\n[[access.user]]\npassword = \"\"\nname = \"b\"\n[log]\n", "b")
	f.Fuzz(func(t *testing.T, text, user string) {
		if _, _, err := loadText(t, text, nil); err != nil || len(user) > maxUserName {
			return
		}
		out, added, err := SetPassword(text, user, newHash)
		if err != nil {
			return
		}
		before := mustLoad(t, text)
		if added && (user == "" || strings.ContainsAny(user, "\x00\r\n")) {
			return // what it has written is refused
		}
		after := mustLoad(t, out)
		n := 0
		for i, u := range after.Access.Users {
			if u.Name == user && u.Password.Reveal() == newHash {
				n++
			} else if u.Password != before.Access.Users[i].Password {
				t.Errorf("the password of %q has changed in\n%s", u.Name, out)
			}
		}
		if n != 1 {
			t.Errorf("%d users %q have the password in\n%s", n, user, out)
		}
	})
}
