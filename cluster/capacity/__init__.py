"""How many replicas a traffic needs: measured costs, the controller's formulas, a sizing."""
