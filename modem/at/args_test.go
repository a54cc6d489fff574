package at

import (
	"slices"
	"strings"
	"testing"
)

func TestArgs(t *testing.T) {
	for _, c := range []struct {
		line, name string
		want       []string
	}{
		{"+ECMTCON:0,0,5", "+ECMTCON", []string{"0", "0", "5"}},
		{"+ECMTCONN: 0,0,5", "+ECMTCONN", []string{"0", "0", "5"}},
		{"+ECMTCONN : 0 , 0 , 5 ", "+ECMTCONN", []string{"0", "0", "5"}},
		{`+ECMTOPEN:0,"host, with: comma",1883`, "+ECMTOPEN", []string{"0", "host, with: comma", "1883"}},
		{`+CEREG: 2,1,"1A2B",,7`, "+CEREG", []string{"2", "1", "1A2B", "", "7"}},
		{`+COPS: 0,0,"CHINA MOBILE",7`, "+COPS", []string{"0", "0", "CHINA MOBILE", "7"}},
		{`+CGDCONT: 1,"IPV4V6","","",0`, "+CGDCONT", []string{"1", "IPV4V6", "", "", "0"}},
		{`+X: "a"b",c`, "+X", []string{`a"b`, "c"}},
		{`+X: "unclosed,1`, "+X", []string{`"unclosed`, "1"}},
		{`+ECMTPUB: (0),<msgID>,(0-2),("a","b,c")`, "+ECMTPUB", []string{"(0)", "<msgID>", "(0-2)", `("a","b,c")`}},
		{"+CGEV: ME PDN DEACT 1", "+CGEV", []string{"ME PDN DEACT 1"}},
		{"+ECMTCFG:", "+ECMTCFG", nil},
		{"460012345678901", "", []string{"460012345678901"}},
		{"^MODE: 17,17", "^MODE", []string{"17", "17"}},
		{"RDY", "", []string{"RDY"}},
		{"+CME ERROR: 3", "+CME ERROR", []string{"3"}},
		{"+X: a,", "+X", []string{"a", ""}},
		{"", "", nil},
		{"http://x:80", "", []string{"http://x:80"}},
	} {
		if got := Args(c.line); !slices.Equal(got, c.want) {
			t.Errorf("Args(%q) = %q, want %q", c.line, got, c.want)
		}
		if got := Name(c.line); got != c.name {
			t.Errorf("Name(%q) = %q, want %q", c.line, got, c.name)
		}
	}
}

func TestQuotedDigitsAreToldFromNumbers(t *testing.T) {
	f := Fields(`+CEREG: 1,"12"`)
	if len(f) != 2 || f[0].Quoted || !f[1].Quoted {
		t.Errorf("%+v", f)
	}
}

func FuzzArgs(f *testing.F) {
	for _, s := range []string{"+X: 1,\"a,b\",(1,2)", "+ECMTCON:0,0,5", `"`, `+X: "",""`, "+X:((", ",,,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		fields := Fields(line)
		args := Args(line)
		if len(fields) != len(args) {
			t.Fatalf("%d fields, %d arguments", len(fields), len(args))
		}
		if n := strings.Count(line, ",") + 1; len(args) > n {
			t.Fatalf("%d arguments from %d commas", len(args), n-1)
		}
		for _, a := range args {
			if !strings.Contains(line, a) {
				t.Fatalf("%q is not in %q", a, line)
			}
		}
		// What is put together from plain arguments comes apart again.
		var plain []string
		for _, a := range args {
			if !strings.ContainsAny(a, "\"(),:") {
				plain = append(plain, a)
			}
		}
		if len(plain) > 0 {
			back := Args("+X: \"" + strings.Join(plain, "\",\"") + "\"")
			if !slices.Equal(back, plain) {
				t.Fatalf("%q came back as %q", plain, back)
			}
		}
		Mask(line)
		commandName(line)
		isFinal(line)
	})
}
