package edge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"holdfast/edge/packet"
	"holdfast/edge/password"
	"holdfast/edge/topic"
)

// User is one user of the broker.
type User struct {
	Name string
	// Password is a hash as holdfast/edge/password makes it; empty: only a
	// certificate with Name as its common name lets the user in.
	Password string
	// Publish and Subscribe are the topic filters within which the user may
	// publish and subscribe. In them %u stands for the user name and %c for the
	// client identifier.
	Publish, Subscribe []string
}

// Users is the Access of a broker with users. Clients without a user name are
// let in as Anonymous says. As long as there are no users, it is Anonymous.
type Users struct {
	list   atomic.Pointer[userList]
	logins logins
	secret [32]byte // for account.known

	mu    sync.Mutex
	looks map[lookKey]*look // passwords that are being looked at; guarded by mu
}

// lookKey is a password, as a keyed hash, of one user.
type lookKey struct {
	account *account
	sum     [sha256.Size]byte
}

// look is what all logins with the same user and password wait for. right counts
// if decided, and both once done is closed.
type look struct {
	done           chan struct{}
	right, decided bool
}

// userList is one state of the configuration; it is never changed.
type userList struct {
	anonymous Anonymous
	accounts  map[string]*account
	// nobody is what the password of a user that there is not is tried with: that
	// takes as long as with the dearest of those that there are.
	nobody password.Hash
}

// account is a user with what the process knows besides.
type account struct {
	User
	hash password.Hash
	// known is a keyed hash of the right password, once it was given: the next
	// login with it costs nothing, as when all devices come back at once.
	known atomic.Pointer[[sha256.Size]byte]
}

// NewUsers makes the Access of these users.
func NewUsers(anonymous Anonymous, users []User) (*Users, error) {
	u := &Users{looks: make(map[lookKey]*look)}
	u.logins.init()
	rand.Read(u.secret[:]) // never fails
	return u, u.Set(anonymous, users)
}

// Set replaces the users. It changes nothing if it returns an error. Clients that
// are connected are asked about by Server.ReviewAccess.
func (u *Users) Set(anonymous Anonymous, users []User) error {
	list := &userList{anonymous: anonymous, accounts: make(map[string]*account, len(users))}
	before := u.list.Load()
	for _, user := range users {
		a := &account{User: user}
		if list.accounts[user.Name] != nil {
			return fmt.Errorf("there are two users %q", user.Name)
		}
		list.accounts[user.Name] = a
		if user.Password == "" {
			continue
		}
		var err error
		if a.hash, err = password.Parse(user.Password); err != nil {
			return fmt.Errorf("password of user %q: %w", user.Name, err)
		}
		if a.hash.Cost() > list.nobody.Cost() {
			list.nobody = a.hash.Decoy()
		}
		if before != nil {
			if old := before.accounts[user.Name]; old != nil && old.Password == a.Password {
				a.known.Store(old.known.Load())
			}
		}
	}
	if list.nobody.Cost() == 0 {
		list.nobody = nobody
	}
	u.list.Store(list)
	return nil
}

// Connect may take some seconds: passwords are looked at one after the other, and
// those of an address that has sent wrong ones have to wait.
func (u *Users) Connect(l *Login, stop <-chan struct{}) (Rights, error) {
	list := u.list.Load()
	if l.Certified || l.Username == "" || len(list.accounts) == 0 {
		return list.review(l, nil)
	}
	a := list.accounts[l.Username]
	mac := hmac.New(sha256.New, u.secret[:])
	mac.Write(l.Password)
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	if a.knows(&sum) {
		return a.rights(l), nil
	}
	right, err := u.look(lookKey{a, sum}, stop, func() (bool, error) {
		return u.logins.try(addressOf(l.Remote), stop, func() bool {
			switch {
			case a.knows(&sum): // another login was quicker
				return true
			case a == nil || a.Password == "":
				return list.nobody.Matches(l.Password)
			case !a.hash.Matches(l.Password):
				return false
			}
			a.known.Store(&sum)
			return true
		})
	})
	switch {
	case err != nil:
		return nil, err
	case a == nil:
		return nil, &Refusal{packet.BadUserNameOrPassword, fmt.Sprintf("there is no user %q; holdfast passwd adds one", l.Username)}
	case a.Password == "":
		return nil, &Refusal{packet.BadUserNameOrPassword, fmt.Sprintf("user %q has no password, only a certificate", l.Username)}
	case !right:
		return nil, &Refusal{packet.BadUserNameOrPassword, fmt.Sprintf("wrong password of user %q; holdfast passwd sets a new one", l.Username)}
	}
	return a.rights(l), nil
}

// knows reports whether this is the right password, and was given before.
func (a *account) knows(sum *[sha256.Size]byte) bool {
	if a == nil {
		return false
	}
	known := a.known.Load()
	return known != nil && subtle.ConstantTimeCompare(known[:], sum[:]) == 1
}

// look tries a password, once for all that wait with the same: after a power cut
// the devices of one user come back at once. An error is the caller's own.
func (u *Users) look(key lookKey, stop <-chan struct{}, try func() (bool, error)) (right bool, err error) {
	for {
		u.mu.Lock()
		other := u.looks[key]
		if other == nil {
			break
		}
		u.mu.Unlock()
		select {
		case <-other.done:
		case <-stop:
			return false, errLoginStopped
		}
		if other.decided {
			return other.right, nil
		}
	}
	mine := &look{done: make(chan struct{})}
	u.looks[key] = mine
	u.mu.Unlock()
	right, err = try()
	mine.right, mine.decided = right, err == nil
	u.mu.Lock()
	delete(u.looks, key)
	u.mu.Unlock()
	close(mine.done)
	return right, err
}

// nobody has the costs of a hash that holdfast passwd makes and matches nothing,
// for when no user has a password.
var nobody, _ = password.Parse("$argon2id$v=19$m=9216,t=4,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")

// Review lets a client stay whose user is there still, with the same password.
func (u *Users) Review(l *Login, was Rights) (Rights, error) { return u.list.Load().review(l, was) }

func (list *userList) review(l *Login, was Rights) (Rights, error) {
	if len(list.accounts) == 0 || l.Username == "" && !l.Certified {
		return list.anonymous.Review(l, nil)
	}
	a := list.accounts[l.Username]
	if l.Certified {
		if a == nil {
			return nil, &Refusal{packet.NotAuthorized, fmt.Sprintf("the certificate is that of %q, who is not among the users; add [[access.user]] with this name", l.Username)}
		}
		return a.rights(l), nil
	}
	r, ok := was.(*userRights)
	if !ok || a == nil || a.Password != r.password {
		return nil, &Refusal{packet.NotAuthorized, fmt.Sprintf("user %q is not what it was in the configuration", l.Username)}
	}
	return a.rights(l), nil
}

// userRights is what one client may do as a user.
type userRights struct {
	password           string // the hash that it was let in with
	publish, subscribe []string
}

func (a *account) rights(l *Login) *userRights {
	return &userRights{a.Password, filled(a.User.Publish, l), filled(a.User.Subscribe, l)}
}

// filled puts the names of a client into patterns. A pattern that becomes
// something else by it than was meant is left out: a client identifier "+" or
// "a/b" must not open the topics of others.
func filled(patterns []string, l *Login) (out []string) {
	names := strings.NewReplacer("%u", l.Username, "%c", l.ClientID)
	for _, p := range patterns {
		if strings.Contains(p, "%u") && unfit(l.Username) || strings.Contains(p, "%c") && unfit(l.ClientID) {
			continue
		}
		f := names.Replace(p)
		if f == "" || f[0] == '$' && p[0] != '$' || topic.ValidFilter(f) != nil {
			continue
		}
		out = append(out, f)
	}
	return out
}

func unfit(name string) bool { return name == "" || strings.ContainsAny(name, "+#/") }

func (r *userRights) Publish(name string) bool { return matchesAny(r.publish, name) }

func (r *userRights) Subscribe(filter string) bool {
	for _, p := range r.subscribe {
		if topic.Covers(p, filter) {
			return true
		}
	}
	return false
}

func (r *userRights) Receive(name string) bool { return matchesAny(r.subscribe, name) }

func matchesAny(filters []string, name string) bool {
	for _, f := range filters {
		if topic.Match(f, name) {
			return true
		}
	}
	return false
}
