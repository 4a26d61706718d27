"""Looks at a machine as Planish needs it, and says what is missing; starts and changes nothing."""
