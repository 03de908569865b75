package rotator

import (
	"io"

	"tiwkeyd/secrets"
)

//go:fix inline
type Key = secrets.Key

//go:fix inline
type Target = secrets.Target

//go:fix inline
type Service = secrets.Service

//go:fix inline
const (
	WhiteboardPush   = secrets.WhiteboardPush
	OnlineRecord     = secrets.OnlineRecord
	Transcode        = secrets.Transcode
	VideoGeneration  = secrets.VideoGeneration
	MinKeyLength     = secrets.MinKeyLength
	MaxKeyLength     = secrets.MaxKeyLength
	DefaultKeyLength = secrets.DefaultKeyLength
)

//go:fix inline
func NewKey(id, value string) secrets.Key { return secrets.NewKey(id, value) }

//go:fix inline
func GenerateKey(random io.Reader, length int) (secrets.Key, error) {
	return secrets.GenerateKey(random, length)
}

//go:fix inline
func NewID(random io.Reader) (string, error) { return secrets.NewID(random) }

//go:fix inline
func ParseTarget(s string) (secrets.Target, error) { return secrets.ParseTarget(s) }

//go:fix inline
func Services() []secrets.Service { return secrets.Services() }
