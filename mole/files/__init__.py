"""Files of many texts: read row by row, classified, written in order, and gone on with after a crash."""
