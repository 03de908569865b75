module tiwkeyd

go 1.26

require (
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/robfig/cron/v3 v3.0.1 // indirect
)
