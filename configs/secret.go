package configs

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a password or a PIN. Whatever prints it, prints that it is hidden;
// only Reveal gives it away.
type Secret struct{ value string }

// NewSecret hides s.
func NewSecret(s string) Secret { return Secret{s} }

// Reveal returns the secret itself, for the one place that sends it.
func (s Secret) Reveal() string { return s.value }

// IsSet reports whether there is a secret at all.
func (s Secret) IsSet() bool { return s.value != "" }

// String is "hidden", or empty if there is no secret.
func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return "hidden"
}

// Format is String for every verb: %x and %#v would show the value otherwise.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue keeps the secret out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps the secret out of JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
