package webhook

import "context"

// KeySource gives the keys that callbacks may be signed with. It is safe for concurrent use.
type KeySource interface {
	// Keys gives what is held of an application, without waiting for anything. It reports
	// false if the application is not one that is served. While nothing has been read yet
	// there is no key in it.
	Keys(sdkAppID int64) (Keys, bool)

	// Reread has the application's keys read once more. It waits until enough says so of what
	// is held, or all of it was read by readings that began after the call, and gives what is
	// held then. Callers share readings, whose pace is bounded: a flood of calls reads no more
	// often than one. Of an application that is not served it gives no keys, after as long as
	// one that is takes. An error means that not all could be read before ctx ended; the keys that
	// are held are given all the same.
	Reread(ctx context.Context, sdkAppID int64, enough func(Keys) bool) (Keys, error)
}

// Reader reads a target's keys from where they are kept. It is safe for concurrent use, comes
// back when ctx ends, and its errors hold no key. ErrNoKeyring is an answer, too: there are none.
type Reader interface {
	ReadKeys(ctx context.Context, t Target) (Keys, error)
	String() string // names the place for people
}

// Static is a KeySource of keys that never change, such as those in a variable of the
// environment: the one kind of receiver that must be restarted at every rotation.
type Static []Keys

// Keys gives the keys of an application.
func (s Static) Keys(sdkAppID int64) (Keys, bool) {
	for _, k := range s {
		if k.SdkAppID == sdkAppID {
			return k, true
		}
	}
	return Keys{}, false
}

// Reread gives the same again.
func (s Static) Reread(_ context.Context, sdkAppID int64, _ func(Keys) bool) (Keys, error) {
	k, _ := s.Keys(sdkAppID)
	return k, nil
}
