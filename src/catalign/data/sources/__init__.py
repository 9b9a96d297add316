"""One module for each kind of data that people come with: two tables (`TableSource`) or published windows."""
