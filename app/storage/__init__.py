"""The coordinator's durable state in SQL: SQLite by default, PostgreSQL by `DATABASE_URL`."""
