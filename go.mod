module tiwkeyd

go 1.26
