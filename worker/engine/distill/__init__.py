"""What a student learns from its teacher: outputs, features, and relations within attention."""
