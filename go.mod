module moult.example

go 1.26.0
