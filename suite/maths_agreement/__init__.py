"""Our verdicts on mathematical answers beside three others', over MATH's references."""
